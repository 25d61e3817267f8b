#include "core/interpreter.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "artifact/check.h"
#include "core/error.h"

namespace lcc {

Interpreter::Interpreter(const Manifest& manifest, Numbers& numbers, Buffers& buffers,
                         Engine& engine)
    : manifest_(manifest), numbers_(numbers), buffers_(buffers) {
    std::set<std::string> marks;
    for (const Pair& pair : manifest.schedule.marks) {
        marks.insert(pair.second);
    }
    for (const BufferSpec& spec : manifest.buffers) {
        if (spec.role == "state" && marks.count(spec.name) == 0) {
            states_.push_back(spec.name);
        }
    }
    for (const auto& list : manifest.schedule.lists()) {
        for (const Block& block : *list.second) {
            for (const Run& run : block.runs) {
                make_calls(run, engine);
            }
        }
    }
}

void Interpreter::make_calls(const Run& run, Engine& engine) {
    const auto make = [&](const std::string& program) {
        Calls calls;
        const auto add = [&](const int64_t* layer) {
            calls.push_back(std::make_unique<Call>(run, program, layer, manifest_, engine,
                                                   numbers_, buffers_));
        };
        if (run.each.empty()) {
            add(nullptr);
        }
        for (const int64_t& layer : run.each) {
            add(&layer);
        }
        return calls;
    };
    calls_[&run] = {make(run.run), run.one ? make(*run.one) : Calls()};
}

void Interpreter::run(const Blocks& blocks, const TokenIds& ids) {
    for (const Block& block : blocks) {
        if (!block.when || numbers_.at(block.when->first) < numbers_.at(block.when->second)) {
            repeat(block, ids);
        }
    }
}

// A block as often as it says; what it lends or reads again changes no state.
void Interpreter::repeat(const Block& block, const TokenIds& ids) {
    const bool again = block.over && block.over->ids == Ids::newest;
    if (states_.empty() || !(block.lend || again)) {
        times(block, ids);
        return;
    }
    const StatesKept kept(*this);
    if (again) {
        for (const auto& [state, mark] : manifest_.schedule.marks) {
            copy(mark, state);
        }
    }
    times(block, ids);
}

Interpreter::StatesKept::StatesKept(Interpreter& interpreter) {
    for (const std::string& name : interpreter.states_) {
        Buffer& buffer = interpreter.buffers_.at(name);
        const View& view = buffer.tensor->view();
        const auto bytes = static_cast<const char*>(view.data);
        before_.emplace_back(&buffer, std::vector<char>(bytes, bytes + view.bytes()));
    }
}

Interpreter::StatesKept::~StatesKept() {
    for (const auto& [buffer, bytes] : before_) {
        std::memcpy(buffer->tensor->view().data, bytes.data(), bytes.size());
    }
}

void Interpreter::mark() {
    for (const auto& [state, mark] : manifest_.schedule.marks) {
        copy(state, mark);
    }
    if (!manifest_.schedule.marks.empty()) {
        numbers_["marked"] = numbers_["used"];
    }
}

void Interpreter::copy(const std::string& from, const std::string& to) {
    const View& source = buffers_.tensor(from).view();
    std::memcpy(buffers_.tensor(to).view().data, source.data, source.bytes());
}

void Interpreter::times(const Block& block, const TokenIds& ids) {
    std::vector<std::pair<int64_t*, int64_t>> lent;
    if (block.lend) {
        for (const std::string& name : block.add) {
            lent.emplace_back(&numbers_.at(name), numbers_.at(name));
        }
    }
    if (block.count) {
        numbers_.at(*block.count) = 0;
    }
    if (!block.over) {
        once(block);
    } else if (!block.over->rows) {
        over_ids(block, ids);
    } else {
        const int64_t& from = numbers_.at(block.over->rows->first);
        const int64_t& to = numbers_.at(block.over->rows->second);
        numbers_["start"] = numbers_["used"];
        while (from < to) {
            numbers_["n"] = std::min(numbers_.at(block.over->most), to - from);
            if (numbers_["n"] <= 0) {
                throw artifact_error("schedule: " + block.over->most + " is " +
                                     std::to_string(numbers_["n"]) + ": a loop without an end");
            }
            once(block);
        }
    }
    for (const auto& [number, value] : lent) {
        *number = value;
    }
}

void Interpreter::over_ids(const Block& block, TokenIds ids) {
    Buffer& buffer = buffers_.at("ids");
    int64_t& used = numbers_["used"];
    if (block.over->count) {  // the newest ids, and the counters as before they were read
        const bool marks = !manifest_.schedule.marks.empty();
        const int64_t since = numbers_.at(marks ? "marked" : "kept");
        const int64_t count =
            std::max<int64_t>(0, std::min(numbers_.at(*block.over->count), used - since));
        const View rows = Buffers::rows(buffer, used - count, used);
        ids.assign(rows.as<int64_t>(), rows.as<int64_t>() + count);
        for (const std::string& name : block.add) {
            numbers_.at(name) -= count;
        }
    }
    numbers_["start"] = used;
    const int64_t most = numbers_.at(block.over->most), total = static_cast<int64_t>(ids.size());
    if (most <= 0 && total > 0) {
        throw artifact_error("schedule: " + block.over->most + " is " + std::to_string(most));
    }
    for (int64_t place = 0; place < total; place += most) {
        const int64_t n = std::min(most, total - place);
        std::copy_n(ids.begin() + place, n, Buffers::rows(buffer, used, used + n).as<int64_t>());
        numbers_["n"] = n;
        once(block);
    }
}

// The runs of a block, and what then becomes of buffers and counters.
void Interpreter::once(const Block& block) {
    for (const std::string& name : block.grow) {
        buffers_.grow(name, numbers_);
    }
    if (block.append) {
        rows().begin(numbers_.at(*block.append), numbers_.at("archived"));
    }
    fetch(block, nullptr);
    for (const Run& run : block.runs) {
        const std::array<Calls, 2>& calls = calls_.at(&run);
        for (const auto& call : calls[numbers_["n"] == 1 && run.one ? 1 : 0]) {
            if (call->layer() != nullptr) {
                numbers_["layer"] = *call->layer();
            }
            fetch(run, call->layer());
            (*call)();
            store(run, block, call->layer());
        }
    }
    if (block.append) {
        store(block, block, nullptr);
        numbers_.at("archived") = rows().commit();
    }
    for (const Copied& row : block.after) {
        const Buffer& buffer = buffers_.at(row.buffer);
        const int64_t from = numbers_.at(row.from), to = numbers_.at(row.to);
        const View source = Buffers::rows(buffer, from, from + 1);
        std::memmove(Buffers::rows(buffer, to, to + 1).data, source.data, source.bytes());
    }
    for (const Pair& pair : block.swap) {
        Buffers::swap(buffers_.at(pair.first), buffers_.at(pair.second));
    }
    for (const std::string& name : block.add) {
        numbers_.at(name) += numbers_["n"];
    }
    if (block.count) {
        numbers_.at(*block.count) += numbers_["n"];
    }
    std::vector<std::pair<int64_t*, int64_t>> values;  // all are read before any is set
    for (const auto& [counter, source] : block.set) {
        values.emplace_back(&numbers_.at(counter), numbers_.at(source));
    }
    for (const auto& [number, value] : values) {
        *number = value;
    }
}

Archive& Interpreter::rows() {
    if (archive == nullptr) {  // a schedule, or a state, whose counters say that there is one
        throw artifact_error("the schedule asks for an archive, and the session has none");
    }
    return *archive;
}

// Brings rows of the archive into buffers.
void Interpreter::fetch(const ArchiveUse& use, const int64_t* layer) {
    for (const auto& [name, from] : use.load) {
        const int64_t first = numbers_.at(from.second), count = numbers_["n"];
        const View out = Buffers::rows(buffers_.at(name), first, first + count);
        rows().read(named(from.first, layer), numbers_.at("row"), out);
    }
    for (const auto& [name, column] : use.gather) {
        const int64_t count = numbers_.at("back");
        const View chosen = Buffers::rows(buffers_.at("rows"), 0, count);
        rows().take(named(column, layer), chosen, Buffers::rows(buffers_.at(name), 0, count));
    }
}

void Interpreter::store(const ArchiveUse& use, const Block& block, const int64_t* layer) {
    for (const auto& [column, name] : use.store) {
        const int64_t count = numbers_.at(*block.append);
        rows().put(named(column, layer), Buffers::rows(buffers_.at(name), 0, count));
    }
}

}  // namespace lcc
