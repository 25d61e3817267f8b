#include "session/golden.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "artifact/fields.h"
#include "core/error.h"
#include "core/executor.h"
#include "session/catalyst.h"

namespace lcc {

namespace {

using Where = const std::string&;

struct CycleRecord {
    int64_t tokens = 0;
    Numbers counters;
    std::map<std::string, std::vector<std::vector<int64_t>>> kept;  // layer -> heads -> positions
};

struct LogitsRecord {
    int64_t tokens = 0;
    std::vector<std::pair<int64_t, double>> top;
};

struct Golden {
    AskedSizes sizes;
    TokenIds ids, next;
    std::vector<CycleRecord> cycles;
    std::vector<LogitsRecord> logits;
    double tolerance_logits = 0, tolerance_kept = 0;
    bool exact = false;
};

std::vector<int64_t> read_positions(const Json& json, Where where) {
    std::vector<int64_t> positions;
    for (const Json& each : json.items(where)) {
        positions.push_back(each.integer(where));
    }
    return positions;
}

std::vector<std::vector<int64_t>> read_heads(const Json& json, Where where) {
    std::vector<std::vector<int64_t>> heads;
    for (const Json& each : json.items(where)) {
        heads.push_back(read_positions(each, where));
    }
    return heads;
}

CycleRecord read_cycle(const Json& json, Where where) {
    const Fields fields(json, where, {"tokens", "counters", "kept"});
    return {fields.integer("tokens"), fields.map<int64_t>("counters", read_integer),
            fields.map<std::vector<std::vector<int64_t>>>("kept", read_heads)};
}

std::pair<int64_t, double> read_logit(const Json& json, Where where) {
    const Json::List& items = json.items(where);
    if (items.size() != 2) {
        throw artifact_error(where + ": wanted an id and a logit");
    }
    return {items[0].integer(where), items[1].number(where)};
}

LogitsRecord read_logits(const Json& json, Where where) {
    const Fields fields(json, where, {"tokens", "top"});
    return {fields.integer("tokens"), fields.list<std::pair<int64_t, double>>("top", read_logit)};
}

Golden read_golden(const std::string& folder) {
    const Json page = Json::parse(read_file(folder + "/golden.json"));
    const Fields fields(page, "",
                        {"sizes", "ids", "cycles", "logits", "next", "tolerance", "exact"});
    Golden golden;
    const Fields sizes(fields.get("sizes"), "sizes", {"capacity", "budget", "chunk_size"});
    golden.sizes = {sizes.integer("capacity"), sizes.integer("budget"),
                    sizes.integer("chunk_size")};
    golden.ids = fields.list<int32_t>("ids", read_id);
    golden.next = fields.list<int32_t>("next", read_id);
    golden.cycles = fields.list<CycleRecord>("cycles", read_cycle);
    golden.logits = fields.list<LogitsRecord>("logits", read_logits);
    const Fields tolerance(fields.get("tolerance"), "tolerance", {"logits", "kept"});
    golden.tolerance_logits = tolerance.get("logits").number("tolerance: logits");
    golden.tolerance_kept = tolerance.get("kept").number("tolerance: kept");
    golden.exact = fields.get("exact").boolean("exact");
    if (golden.logits.size() != golden.next.size() + 1) {
        throw artifact_error("wanted one place of logits more than next has ids");
    }
    return golden;
}

// Reads into an executor and compares what it finds.
class GoldenCheck {
public:
    GoldenCheck(const Manifest& manifest, const Golden& golden, Engine& engine)
        : manifest_(manifest), golden_(golden),
          executor_(manifest, lowered(manifest, golden.sizes), engine) {}

    void check() {
        read(golden_.ids, true);
        for (size_t i = 0; i < golden_.logits.size(); ++i) {
            check_logits(golden_.logits[i], i < golden_.next.size() ? &golden_.next[i] : nullptr);
            if (i < golden_.next.size()) {
                read({golden_.next[i]}, false);
            }
        }
        compare("number of cycles", static_cast<double>(cycles_),
                static_cast<double>(golden_.cycles.size()), 0);
    }

private:
    void read(TokenIds ids, bool ends) {
        while (!ids.empty()) {
            const int64_t rest = static_cast<int64_t>(ids.size());
            const int64_t room = executor_.usable() - executor_.used();
            if (room <= 0) {
                const bool last =
                    ends && rest <= executor_.usable() - executor_.sizes().budget;
                executor_.evict(cycle_ids(executor_, manifest_.text.catalyst), last ? rest : -1);
                check_cycle();
                continue;
            }
            const auto count = static_cast<ptrdiff_t>(std::min(rest, room));
            executor_.read(TokenIds(ids.begin(), ids.begin() + count));
            ids.erase(ids.begin(), ids.begin() + count);
        }
    }

    void check_cycle() {
        const std::string where = "cycle after " + std::to_string(executor_.tokens()) + " tokens";
        if (cycles_ == golden_.cycles.size()) {
            fail(where + ", wanted none");
        }
        const CycleRecord& wanted = golden_.cycles[cycles_++];
        const Numbers counters = executor_.counters();
        compare(where + ": tokens", executor_.tokens(), wanted.tokens);
        for (const auto& [name, value] : wanted.counters) {
            const auto found = counters.find(name);
            if (found == counters.end()) {
                fail(where + ": no counter " + name);
            }
            compare(where + ": " + name, found->second, value);
        }
        for (const auto& [layer, heads] : wanted.kept) {
            check_kept(where + ": layer " + layer, std::strtoll(layer.c_str(), nullptr, 10), heads);
        }
    }

    void check_kept(Where where, int64_t layer, const std::vector<std::vector<int64_t>>& heads) {
        const KeptTokens kept = executor_.kept_tokens(layer);
        compare(where + ": KV heads", static_cast<int64_t>(kept.heads),
                static_cast<int64_t>(heads.size()));
        size_t all = 0, lost = 0;
        std::string first;
        for (size_t head = 0; head < heads.size(); ++head) {
            const auto begin = kept.positions.begin() + static_cast<ptrdiff_t>(head * kept.used);
            std::multiset<int64_t> got(begin, begin + static_cast<ptrdiff_t>(kept.used));
            for (int64_t position : heads[head]) {
                ++all;
                const auto found = got.find(position);
                if (found != got.end()) {
                    got.erase(found);
                } else if (lost++ == 0) {
                    first = std::to_string(position);
                }
            }
        }
        if (static_cast<double>(lost) > golden_.tolerance_kept * static_cast<double>(all)) {
            fail(where + " lacks " + std::to_string(lost) + " of " + std::to_string(all) +
                 " positions, the first is " + first);
        }
    }

    void check_logits(const LogitsRecord& wanted, const int32_t* next) {
        compare("tokens read", executor_.tokens(), wanted.tokens);
        const std::string where = "after " + std::to_string(wanted.tokens) + " tokens";
        const float* logits = executor_.logits();
        for (const auto& [id, value] : wanted.top) {
            if (id < 0 || id >= manifest_.vocab_size) {
                fail(where + ": " + std::to_string(id) + " is no id");
            }
            compare(where + ", logit " + std::to_string(id), static_cast<double>(logits[id]), value,
                    golden_.tolerance_logits);
        }
        if (next != nullptr && golden_.exact) {
            const float* best = std::max_element(logits, logits + manifest_.vocab_size);
            compare(where + ", the next token", static_cast<int64_t>(best - logits),
                    static_cast<int64_t>(*next));
        }
    }

    void compare(Where what, int64_t got, int64_t wanted) const {
        if (got != wanted) {
            fail(what + " is " + std::to_string(got) + ", wanted " + std::to_string(wanted));
        }
    }

    void compare(Where what, double got, double wanted, double tolerance) const {
        if (!(std::fabs(got - wanted) <= tolerance)) {
            std::ostringstream text;
            text << what << " is " << got << ", wanted " << wanted;
            fail(text.str());
        }
    }

    [[noreturn]] void fail(Where what) const {
        throw Error(LCC_ERROR_GOLDEN, "golden: " + what);
    }

    const Manifest& manifest_;
    const Golden& golden_;
    Executor executor_;
    size_t cycles_ = 0;
};

}  // namespace

void check_golden(const std::string& folder, const Manifest& manifest, Engine& engine) {
    if (manifest.files.count("golden.json") == 0) {
        throw artifact_error(folder + ": it has no golden.json; compile the model anew");
    }
    Golden golden;
    try {
        golden = read_golden(folder);
    } catch (const Error& error) {
        throw at(folder + "/golden.json", error);
    }
    GoldenCheck(manifest, golden, engine).check();
}

}  // namespace lcc
