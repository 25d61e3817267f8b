#include <algorithm>
#include <set>

#include "artifact/check.h"
#include "core/error.h"

namespace lcc {

namespace {

bool is_hex64(const std::string& text) {
    return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void check_path(const std::string& name) {
    bool leaves = name.empty() || name[0] == '/' || name.find_first_of(std::string("\\:\0", 3)) !=
                                                        std::string::npos;
    for (size_t begin = 0; begin <= name.size() && !leaves;) {
        const size_t end = std::min(name.find('/', begin), name.size());
        leaves = name.compare(begin, end - begin, "..") == 0;
        begin = end + 1;
    }
    if (leaves) {
        throw artifact_error("files: \"" + name + "\" leaves the folder; wanted a relative path");
    }
    if (name == "manifest.json") {
        throw artifact_error("files: manifest.json cannot list itself");
    }
}

void check_programs(const Manifest& manifest, const Programs& programs) {
    for (const auto& [name, program] : programs) {
        if (manifest.files.count(program.file) == 0) {
            throw artifact_error("programs: " + name + " is in " + program.file +
                                 ", which files does not list");
        }
        for (const auto& [output, source] : program.updates) {
            const TensorSpec* one = program.tensor(output);
            const TensorSpec* other = program.tensor(source);
            if (one == nullptr || other == nullptr || program.is_input(output) ||
                !program.is_input(source)) {
                throw artifact_error("programs: " + name + " has no update " + output + " -> " +
                                     source);
            }
            if (one->dtype != other->dtype || !(one->shape == other->shape)) {
                throw artifact_error("programs: " + name + ": " + output +
                                     " has another dtype or shape than " + source);
            }
        }
    }
}

void known(bool found, const std::string& message) {
    if (!found) {
        throw artifact_error(message);
    }
}

void check_numbers(const Manifest& manifest) {
    const Numbers& constants = manifest.constants;
    const Numbers& counters = manifest.counters;
    for (const auto& each : constants) {
        known(counters.count(each.first) == 0, "counters: " + each.first + " is a constant, too");
    }
    for (const char* name :
         {"zero", "one", "capacity", "budget", "chunk_size", "reserved", "no_state"}) {
        known(constants.count(name) != 0, std::string("constants: no ") + name);
    }
    for (const char* name : {"used", "kept", "tokens", "n", "start", "layer", "protected", "known",
                             "left", "state"}) {
        known(counters.count(name) != 0, std::string("counters: no ") + name);
    }
    const CacheSizes& cache = manifest.cache;
    known(constants.at("capacity") == cache.capacity && constants.at("budget") == cache.budget &&
              constants.at("chunk_size") == cache.chunk_size,
          "constants: capacity, budget and chunk_size are not those of cache");
    known(cache.budget >= 1 && cache.chunk_size >= 1 && constants.at("reserved") >= 0 &&
              cache.budget < cache.capacity && cache.capacity < int64_t{1} << 40 &&
              constants.at("reserved") < int64_t{1} << 40 &&
              cache.budget + cache.chunk_size + constants.at("reserved") <= cache.capacity,
          "constants: budget + chunk_size + reserved exceed capacity, or one is less than 1");
    known(counters.at("state") == constants.at("no_state") && constants.at("no_state") == -1,
          "counters: wanted state to be no_state, -1, at first");
    known(constants.at("zero") == 0 && constants.at("one") == 1,
          "constants: wanted zero to be 0 and one to be 1");
}

void check_groups(const Manifest& manifest) {
    std::multiset<int64_t> layers;
    std::set<std::string> names;
    for (const Group& group : manifest.groups) {
        const std::string where = "groups: " + group.name;
        for (const std::string& name : {group.used, group.kept}) {
            known(manifest.counters.count(name) != 0, where + ": no counter " + name);
        }
        known(!group.slots.named() || manifest.constants.count(group.slots.name) != 0,
              where + ": no constant " + group.slots.name);
        known(group.slots.named() || group.slots.number >= 1, where + ": wanted 1 slot or more");
        if (group.align) {
            const auto align = manifest.constants.find(*group.align);
            known(align != manifest.constants.end(), where + ": no constant " + *group.align);
            known(align->second >= 1, where + ": align is 0 or less, wanted 1 or more");
        }
        layers.insert(group.layers.begin(), group.layers.end());
        names.insert(group.name);
    }
    const Group* full = manifest.groups.empty() ? nullptr : &manifest.groups[0];
    known(full != nullptr && full->name == "full" && full->used == "used" &&
              full->kept == "kept" && full->slots == Size{"capacity", 0} && !full->align,
          "groups: wanted full first, with used, kept and capacity");
    std::multiset<int64_t> wanted;
    for (size_t i = 0; i < manifest.kv_heads.size(); ++i) {
        wanted.insert(static_cast<int64_t>(i));
        known(manifest.kv_heads[i] >= 1, "model: layers: wanted kv_heads of 1 or more");
    }
    known(layers == wanted, "groups: wanted each of the model's layers once");
    std::set<std::string> compacted{"full"};
    for (const auto& each : manifest.schedule.compact) {
        compacted.insert(each.first);
    }
    known(compacted == names && names.size() == manifest.groups.size(),
          "schedule: compact: wanted a list for each group but full");
}

void check_buffer(const Manifest& manifest, const BufferSpec& spec) {
    const std::string where = "buffers: " + spec.name;
    const Numbers& constants = manifest.constants;
    int64_t total = 1;
    for (const Size& size : spec.shape) {
        if (size.named() && manifest.counters.count(size.name) != 0) {  // it grows
            known(!spec.saved && !spec.layer && spec.shape.size() == 1,
                  where + ": size " + size.name + " is a counter, wanted a constant");
            continue;
        }
        known(!size.named() || constants.count(size.name) != 0,
              where + ": no constant " + size.name);
        const int64_t number = size.named() ? constants.at(size.name) : size.number;
        known(number >= 1, where + ": size " + size.shown() + " is less than 1");
        known(number < (int64_t{1} << 40) / total, where + ": it is larger than any memory");
        total *= number;
    }
    if (spec.saved) {
        for (const std::string& name : {spec.saved->first, spec.saved->second}) {
            known(constants.count(name) + manifest.counters.count(name) != 0,
                  where + ": no counter " + name);
        }
    }
    if (spec.group) {
        bool found = false;
        for (const Group& group : manifest.groups) {
            found = found || group.name == *spec.group;
        }
        known(found, where + ": no group " + *spec.group);
    }
    // States are counted on their own.
    known(!spec.layer || spec.role == "state" ||
              (*spec.layer >= 0 && *spec.layer < static_cast<int64_t>(manifest.kv_heads.size())),
          where + ": the model has no such layer");
}

void check_wanted_buffer(const BuffersByName& buffers, const std::string& name,
                         const std::string& role, const Dtype* dtype) {
    const auto found = buffers.find(name);
    known(found != buffers.end() && found->second->role == role &&
              (dtype == nullptr || found->second->dtype == *dtype),
          "buffers: wanted " + name + ", of role " + role +
              (dtype == nullptr ? "" : std::string(" ") + name_of(*dtype)));
}

void check_over(const Manifest& manifest, const Block& block, const std::string& list,
                const std::string& where) {
    if (!block.over) {
        return;
    }
    const Over& over = *block.over;
    known(over.ids.has_value() != over.rows.has_value(),
          where + ": over has ids and rows, or neither; wanted one of them");
    known((over.ids == Ids::newest) == over.count.has_value(),
          where + ": over has a count where ids are newest, only");
    const auto most = manifest.constants.find(over.most);
    known(most == manifest.constants.end() || most->second >= 1,
          where + ": most is " + over.most + ", which is 0 or less");
    if (over.rows) {
        const std::set<std::string> added(block.add.begin(), block.add.end());
        known(added.count(over.rows->first) != 0 && added.count(over.rows->second) == 0,
              where + ": " + over.rows->first + " is not added to: a loop without an end");
        return;
    }
    const bool reads = list == "read" || list == "nll";
    const bool asks = list == "cycle" || list == "recall";
    known((over.ids == Ids::text && reads) || (over.ids == Ids::catalyst && asks) ||
              (over.ids == Ids::newest && list == "cycle"),
          where + ": a loop over ids that this list does not have");
}

// Every counter and constant that a block names exists, and only counters are changed.
void check_names(const Manifest& manifest, const Block& block, const std::string& where) {
    Names changed = block.add, names;
    for (const auto& [counter, source] : block.set) {
        changed.push_back(counter);
        names.push_back(source);
    }
    if (block.count) {
        changed.push_back(*block.count);
    }
    if (block.when) {
        names.insert(names.end(), {block.when->first, block.when->second});
    }
    for (const Copied& row : block.after) {
        names.insert(names.end(), {row.from, row.to});
    }
    if (block.over) {
        names.push_back(block.over->most);
        if (block.over->rows) {
            names.insert(names.end(), {block.over->rows->first, block.over->rows->second});
        }
        if (block.over->count) {
            names.push_back(*block.over->count);
        }
    }
    for (const Run& run : block.runs) {
        for (const auto& each : run.read) {
            changed.push_back(each.second);
        }
        for (const auto& each : run.ints) {
            names.push_back(each.second.first);
            names.push_back(each.second.count.empty() ? "zero" : each.second.count);
        }
        for (const auto& each : run.bind) {
            if (!each.second.first.empty()) {
                names.insert(names.end(), {each.second.first, each.second.count});
            }
        }
    }
    for (const std::string& name : changed) {
        known(manifest.counters.count(name) != 0, where + ": no counter " + name);
    }
    for (const std::string& name : names) {
        known(manifest.counters.count(name) + manifest.constants.count(name) != 0,
              where + ": no counter or constant " + name);
    }
}

void check_memory(const Block& block, const BuffersByName& buffers, const std::string& where) {
    for (const Copied& row : block.after) {
        const auto found = buffers.find(row.buffer);
        known(found != buffers.end(), where + ": after: no buffer " + row.buffer);
        known(found->second->role != "key" && found->second->role != "value",
              where + ": after: " + row.buffer + " may lie on a device; no row of it is copied");
    }
    for (const Pair& pair : block.swap) {
        check_swap(pair, buffers, where);
    }
}

}  // namespace

void check_manifest(const Manifest& manifest) {
    for (const auto& [name, entry] : manifest.files) {
        check_path(name);
        known(entry.bytes >= 0 && is_hex64(entry.sha256),
              "files: " + name + ": wanted bytes >= 0 and a sha256 of 64 hex digits");
    }
    known(manifest.vocab_size >= 1 && manifest.vocab_size < int64_t{1} << 31,
          "model: wanted a vocab_size of 1 or more");
    check_numbers(manifest);
    check_groups(manifest);
    for (const Built& built : manifest.also) {
        known(built.target != manifest.target, "also: " + built.target + " is the target already");
    }
    for (const std::string& name : manifest.targets()) {
        const Manifest own = manifest.for_target(name);
        check_programs(manifest, own.programs);
        check_schedule(own, manifest);
    }
}

void check_schedule(const Manifest& manifest, const Manifest& whole) {
    BuffersByName buffers;
    for (const BufferSpec& spec : manifest.buffers) {
        check_buffer(manifest, spec);
        known(buffers.emplace(spec.name, &spec).second,
              "buffers: " + spec.name + " is there twice");
    }
    const Dtype int64 = Dtype::int64, float32 = Dtype::float32;
    check_wanted_buffer(buffers, "ids", "tokens", &int64);
    check_wanted_buffer(buffers, "logits", "logits", &float32);
    check_wanted_buffer(buffers, "hidden", "hidden", nullptr);
    check_wanted_buffer(buffers, "nll", "entry_score", &float32);
    check_columns(manifest, buffers);
    check_states(manifest, buffers);
    for (const auto& [name, blocks] : manifest.schedule.lists()) {
        for (size_t place = 0; place < blocks->size(); ++place) {
            const Block& block = (*blocks)[place];
            const std::string where = "schedule: " + name + ", block " + std::to_string(place);
            check_over(manifest, block, name, where);
            check_names(manifest, block, where);
            check_memory(block, buffers, where);
            check_archive_use(manifest, block, buffers, where);
            for (const Run& run : block.runs) {
                check_run(manifest, whole, buffers, run, where);
            }
        }
    }
}

void check_counters(const Manifest& manifest, const Numbers& constants, const Numbers& counters) {
    constexpr int64_t largest = int64_t{1} << 53;  // what every reader of JSON keeps exactly
    const auto range = [&](const std::string& name, int64_t least, int64_t most) {
        const int64_t value = counters.at(name);
        known(least <= value && value <= most,
              "counters: " + name + " is " + std::to_string(value) + ", wanted " +
                  std::to_string(least) + " to " + std::to_string(most));
    };
    for (const auto& each : manifest.counters) {
        known(counters.count(each.first) != 0, "counters: " + each.first + " is missing");
        range(each.first, -1, largest);
    }
    known(counters.size() == manifest.counters.size(),
          "counters: there is one that is not of this artifact");
    for (const Group& group : manifest.groups) {
        range(group.used, 0,
              group.slots.named() ? constants.at(group.slots.name) : group.slots.number);
        range(group.kept, 0, counters.at(group.used));
    }
    const int64_t used = counters.at("used");
    const Size& rows = manifest.buffer("hidden")->shape.at(0);
    range("tokens", used, largest);
    range("state", -1, (rows.named() ? constants.at(rows.name) : rows.number) - 1);
    range("protected", 0, used);
    range("known", 0, used);
}

std::string named(const std::string& name, const int64_t* layer) {
    if (layer == nullptr || name.find('*') == std::string::npos) {
        return name;
    }
    std::string result;
    for (char letter : name) {
        result += letter == '*' ? std::to_string(*layer) : std::string(1, letter);
    }
    return result;
}

}  // namespace lcc
