#include <algorithm>
#include <set>

#include "artifact/check.h"

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

void check_groups(const Manifest& manifest) {
    std::multiset<int64_t> layers;
    std::set<std::string> names;
    for (const Group& group : manifest.groups) {
        const std::string where = "groups: " + group.name;
        for (const std::string& name : {group.used, group.kept}) {
            require(manifest.counters.count(name) != 0, where + ": no counter " + name);
        }
        require(!group.slots.named() || manifest.constants.count(group.slots.name) != 0,
              where + ": no constant " + group.slots.name);
        require(group.slots.named() || group.slots.number >= 1, where + ": wanted 1 slot or more");
        if (group.align) {
            const auto align = manifest.constants.find(*group.align);
            require(align != manifest.constants.end(), where + ": no constant " + *group.align);
            require(align->second >= 1, where + ": align is 0 or less, wanted 1 or more");
        }
        layers.insert(group.layers.begin(), group.layers.end());
        names.insert(group.name);
    }
    const Group* full = manifest.groups.empty() ? nullptr : &manifest.groups[0];
    require(full != nullptr && full->name == "full" && full->used == "used" &&
              full->kept == "kept" && full->slots == Size{"capacity", 0} && !full->align,
          "groups: wanted full first, with used, kept and capacity");
    std::multiset<int64_t> wanted;
    for (size_t i = 0; i < manifest.kv_heads.size(); ++i) {
        wanted.insert(static_cast<int64_t>(i));
        require(manifest.kv_heads[i] >= 1, "model: layers: wanted kv_heads of 1 or more");
    }
    require(layers == wanted, "groups: wanted each of the model's layers once");
    std::set<std::string> compacted{"full"};
    for (const auto& each : manifest.schedule.compact) {
        compacted.insert(each.first);
    }
    require(compacted == names && names.size() == manifest.groups.size(),
          "schedule: compact: wanted a list for each group but full");
}

void check_buffer(const Manifest& manifest, const BufferSpec& spec) {
    const std::string where = "buffers: " + spec.name;
    const Numbers& constants = manifest.constants;
    int64_t total = 1;
    for (const Size& size : spec.shape) {
        if (size.named() && manifest.counters.count(size.name) != 0) {  // it grows
            require(!spec.saved && !spec.layer && spec.shape.size() == 1,
                  where + ": size " + size.name + " is a counter, wanted a constant");
            continue;
        }
        require(!size.named() || constants.count(size.name) != 0,
              where + ": no constant " + size.name);
        const int64_t number = size.named() ? constants.at(size.name) : size.number;
        require(number >= 1, where + ": size " + size.shown() + " is less than 1");
        require(number < (int64_t{1} << 40) / total, where + ": it is larger than any memory");
        total *= number;
    }
    if (spec.saved) {
        for (const std::string& name : {spec.saved->first, spec.saved->second}) {
            require(constants.count(name) + manifest.counters.count(name) != 0,
                  where + ": no counter " + name);
        }
    }
    if (spec.group) {
        bool found = false;
        for (const Group& group : manifest.groups) {
            found = found || group.name == *spec.group;
        }
        require(found, where + ": no group " + *spec.group);
    }
    // States are counted on their own.
    require(!spec.layer || spec.role == "state" ||
              (*spec.layer >= 0 && *spec.layer < static_cast<int64_t>(manifest.kv_heads.size())),
          where + ": the model has no such layer");
}

void check_wanted_buffer(const BuffersByName& buffers, const std::string& name,
                         const std::string& role, const Dtype* dtype) {
    const auto found = buffers.find(name);
    require(found != buffers.end() && found->second->role == role &&
              (dtype == nullptr || found->second->dtype == *dtype),
          "buffers: wanted " + name + ", of role " + role +
              (dtype == nullptr ? "" : std::string(" ") + name_of(*dtype)));
}

}  // namespace

void check_manifest(const Manifest& manifest) {
    for (const auto& [name, entry] : manifest.files) {
        check_path(name);
        require(entry.bytes >= 0 && is_hex64(entry.sha256),
              "files: " + name + ": wanted bytes >= 0 and a sha256 of 64 hex digits");
    }
    require(manifest.vocab_size >= 1 && manifest.vocab_size < int64_t{1} << 31,
          "model: wanted a vocab_size of 1 or more");
    check_numbers(manifest);
    check_groups(manifest);
    for (const Built& built : manifest.also) {
        require(built.target != manifest.target, "also: " + built.target + " is the target already");
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
        require(buffers.emplace(spec.name, &spec).second,
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
            check_block(manifest, block, buffers, name, where);
            check_archive_use(manifest, block, buffers, where);
            for (const Run& run : block.runs) {
                check_run(manifest, whole, buffers, run, where);
            }
        }
    }
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
