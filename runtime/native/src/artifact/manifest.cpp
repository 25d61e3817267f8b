#include "artifact/manifest.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "artifact/check.h"
#include "artifact/fields.h"
#include "artifact/read_schedule.h"
#include "artifact/sha256.h"
#include "core/error.h"

namespace lcc {

namespace {

const char* const MANIFEST = "manifest.json";

// The version comes first: nothing else is believed of a page of another one.
void check_header(const Json& page) {
    const Json::Object& fields = page.fields("the page");
    const auto format = fields.find("format"), version = fields.find("version");
    if (format == fields.end() || format->second.text("format") != "lcc") {
        throw artifact_error("format is not \"lcc\"");
    }
    const int64_t number = version == fields.end() ? 0 : version->second.integer("version");
    if (number != FORMAT_VERSION) {
        throw artifact_error(
            "version " + std::to_string(number) + ", this lcc reads version " +
            std::to_string(FORMAT_VERSION) + "; " +
            (number > FORMAT_VERSION ? "install a newer lcc or " : "") + "compile the model anew");
    }
}

CacheSizes read_cache(const Json& json, const std::string& where) {
    const Fields fields(json, where, {"capacity", "budget", "chunk_size", "catalyst_size",
                                      "sink_size", "recent_size", "positions"});
    CacheSizes sizes;
    sizes.capacity = fields.integer("capacity", sizes.capacity);
    sizes.budget = fields.integer("budget", sizes.budget);
    sizes.chunk_size = fields.integer("chunk_size", sizes.chunk_size);
    sizes.catalyst_size = fields.integer("catalyst_size", sizes.catalyst_size);
    sizes.sink_size = fields.integer("sink_size", sizes.sink_size);
    sizes.recent_size = fields.integer("recent_size", sizes.recent_size);
    sizes.positions = fields.text("positions", sizes.positions);
    return sizes;
}

FileEntry read_file_entry(const Json& json, const std::string& where) {
    const Fields fields(json, where, {"bytes", "sha256"});
    return {fields.integer("bytes"), fields.text("sha256")};
}

int64_t read_layer(const Json& json, const std::string& where) {
    const Fields fields(json, where,
                        {"query_heads", "kv_heads", "head_size", "window_size", "kind", "slots"});
    return fields.integer("kv_heads");
}

void read_model(const Json& json, Manifest& manifest) {
    const Fields fields(json, "model", {"name", "architecture", "hidden_size", "vocab_size",
                                        "layers", "trained_window"});
    manifest.model_name = fields.text("name");
    manifest.architecture = fields.text("architecture");
    manifest.vocab_size = fields.integer("vocab_size");
    manifest.kv_heads = fields.list<int64_t>("layers", read_layer);
}

void read_policy(const Json& json, Manifest& manifest) {
    const Fields fields(json, "policy", {"name", "options"});
    manifest.policy = fields.text("name", "consensus");
    if (const Json* options = fields.find("options")) {
        manifest.policy_has_seed = options->fields("policy: options").count("seed") != 0;
    }
}

std::vector<Built> read_also(const Fields& fields) {
    std::vector<Built> also;
    if (const Json* json = fields.find("also")) {
        for (const auto& [name, each] : json->fields("also")) {
            const std::string where = "also: " + name;
            const Fields built(each, where, {"cache_dtype", "cpu", "note", "programs"});
            const Json* dtype = built.find("cache_dtype");
            also.push_back({name,
                            dtype == nullptr ? Dtype::float32 : read_dtype(*dtype, where),
                            built.text("cpu", ""),
                            read_programs(built.get("programs"), where + ": programs")});
        }
    }
    return also;
}

// sha256 of the page without what is of one target: the same artifact, whichever of them runs.
std::string fingerprint_of(Json page) {
    Json::Object& fields = page.fields("the page");
    for (const char* name : {"also", "cpu", "note"}) {
        fields.erase(name);
    }
    fields["target"] = Json::of("");
    fields["programs"] = Json::object();
    fields["buffers"] = Json::list();
    return Sha256::of(page.page() + "\n");
}

}  // namespace

Manifest parse_manifest(const std::string& data) {
    const Json page = Json::parse(data);
    check_header(page);
    const Fields fields(
        page, "",
        {"format", "version", "made_by", "target", "also", "cpu", "note", "precision", "model",
         "cache", "policy", "heads", "constants", "counters", "groups", "buffers", "schedule",
         "archive", "text", "programs", "passes", "memory", "files"});
    Manifest manifest;
    manifest.target = fields.text("target");
    manifest.cpu = fields.text("cpu", "");
    manifest.precision = fields.text("precision", "fp32");
    manifest.also = read_also(fields);
    manifest.has_heads = fields.has("heads");
    manifest.cache = read_cache(fields.get("cache"), "cache");
    read_model(fields.get("model"), manifest);
    read_policy(fields.get("policy"), manifest);
    manifest.constants = fields.map<int64_t>("constants", read_integer);
    manifest.counters = fields.map<int64_t>("counters", read_integer);
    manifest.groups = fields.list<Group>("groups", read_group);
    manifest.buffers = fields.list<BufferSpec>("buffers", read_buffer);
    manifest.schedule = read_schedule(fields.get("schedule"), "schedule");
    manifest.archive = fields.list<Column>("archive", read_column);
    manifest.text = read_text_facts(fields.get("text"), "text");
    manifest.programs = read_programs(fields.get("programs"), "programs");
    manifest.files = fields.map<FileEntry>("files", read_file_entry);
    manifest.fingerprint = fingerprint_of(page);
    check_manifest(manifest);
    return manifest;
}

size_t width(Dtype dtype) {
    switch (dtype) {
        case Dtype::float16: return 2;
        case Dtype::int64: return 8;
        default: return 4;
    }
}

const char* name_of(Dtype dtype) {
    static const char* const names[] = {"float32", "float16", "int32", "int64"};
    return names[static_cast<int>(dtype)];
}

const TensorSpec* ProgramEntry::tensor(const std::string& name) const {
    for (const auto* tensors : {&inputs, &outputs}) {
        for (const TensorSpec& each : *tensors) {
            if (each.name == name) {
                return &each;
            }
        }
    }
    return nullptr;
}

bool ProgramEntry::is_input(const std::string& name) const {
    for (const TensorSpec& each : inputs) {
        if (each.name == name) {
            return true;
        }
    }
    return false;
}

std::vector<std::pair<std::string, const Blocks*>> Schedule::lists() const {
    std::vector<std::pair<std::string, const Blocks*>> all{
        {"read", &read}, {"cycle", &cycle}, {"logits", &logits},
        {"nll", &nll},   {"flush", &flush}, {"recall", &recall}};
    for (const auto& [group, blocks] : compact) {
        all.emplace_back("compact " + group, &blocks);
    }
    return all;
}

const BufferSpec* Manifest::buffer(const std::string& name) const {
    for (const BufferSpec& each : buffers) {
        if (each.name == name) {
            return &each;
        }
    }
    return nullptr;
}

Names Manifest::targets() const {
    Names names{target};
    for (const Built& built : also) {
        names.push_back(built.target);
    }
    return names;
}

Manifest Manifest::for_target(const std::string& name) const {
    Manifest own = *this;
    own.also.clear();
    if (name == target) {
        return own;
    }
    for (const Built& built : also) {
        if (built.target != name) {
            continue;
        }
        own.target = name;
        own.cpu = built.cpu;
        own.programs = built.programs;
        for (BufferSpec& spec : own.buffers) {
            if (spec.role == "key" || spec.role == "value") {
                spec.dtype = built.cache_dtype;
            }
        }
        return own;
    }
    throw artifact_error("the artifact was not compiled for " + name + "; wanted one of " +
                         joined(targets()));
}

std::string read_file(const std::string& path) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    std::string data;
    char part[1 << 16];
    size_t count = 0;
    while (file != nullptr && (count = std::fread(part, 1, sizeof part, file.get())) > 0) {
        data.append(part, count);
    }
    if (file == nullptr || std::ferror(file.get())) {
        throw artifact_error(path + ": cannot read it (" + std::strerror(errno) + ")");
    }
    return data;
}

Manifest read_manifest(const std::string& folder) {
    const std::string path = folder + "/" + MANIFEST;
    std::string data;
    try {
        data = read_file(path);
    } catch (const Error& error) {
        throw artifact_error(folder + " is not an artifact: " + error.what());
    }
    try {
        return parse_manifest(data);
    } catch (const Error& error) {
        throw at(path, error);
    }
}

}  // namespace lcc
