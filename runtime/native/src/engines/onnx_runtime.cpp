#include "engines/onnx_runtime.h"

#include <filesystem>
#include <vector>

#include "artifact/folder.h"
#include "core/error.h"
#include "core/resident.h"
#include "engines/cpu_features.h"
#include "engines/onnx_file.h"

namespace lcc {

namespace {

namespace fs = std::filesystem;

fs::path path_of(const std::string& folder, const std::string& file) {
    return fs::u8path(folder) / fs::u8path(file);
}

int element_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return ort::FLOAT;
        case Dtype::float16: return ort::FLOAT16;
        case Dtype::int32: return ort::INT32;
        default: return ort::INT64;
    }
}

// A binding of its own over a session that others share.
class OnnxRuntimeRunner : public Runner {
public:
    OnnxRuntimeRunner(const ort::Api& api, ort::Session* session, const ProgramEntry& entry)
        : api_(api), session_(session), entry_(entry) {
        api.check(api.CreateIoBinding(session, &binding_), entry.file);
    }

    ~OnnxRuntimeRunner() override { api_.ReleaseIoBinding(binding_); }

    void bind(const std::string& tensor, const View& view) override {
        ort::Value* value = nullptr;
        api_.check(api_.CreateTensorWithDataAsOrtValue(api_.host, view.data, view.bytes(),
                                                       view.shape.data(), view.shape.size(),
                                                       element_type(view.dtype), &value),
                   entry_.file + ", " + tensor);
        // The binding keeps what it needs of the value.
        const std::unique_ptr<ort::Value, void (*)(ort::Value*)> owned(value, api_.ReleaseValue);
        const std::string where = entry_.file + ", " + tensor;
        if (!entry_.is_input(tensor)) {
            api_.check(api_.BindOutput(binding_, tensor.c_str(), value), where);
            return;
        }
        api_.check(api_.BindInput(binding_, tensor.c_str(), value), where);
        for (const auto& [output, source] : entry_.updates) {
            if (source == tensor) {
                api_.check(api_.BindOutput(binding_, output.c_str(), value), where);
            }
        }
    }

    void run() override {
        api_.check(api_.RunWithBinding(session_, nullptr, binding_), entry_.file);
    }

private:
    const ort::Api& api_;
    ort::Session* session_;
    const ProgramEntry& entry_;
    ort::IoBinding* binding_ = nullptr;
};

// Name, dtype and shape of the inputs, or of the outputs, of a loaded program.
struct Node {
    int type = 0;
    std::vector<int64_t> shape;  // -1 = any
};

std::map<std::string, Node> nodes(const ort::Api& api, const ort::Session* session, bool inputs) {
    const std::string where = "signature";
    size_t count = 0;
    api.check((inputs ? api.SessionGetInputCount : api.SessionGetOutputCount)(session, &count),
              where);
    ort::Allocator* allocator = nullptr;
    api.check(api.GetAllocatorWithDefaultOptions(&allocator), where);
    std::map<std::string, Node> found;
    for (size_t i = 0; i < count; ++i) {
        char* name = nullptr;
        const auto get_name = inputs ? api.SessionGetInputName : api.SessionGetOutputName;
        api.check(get_name(session, i, allocator, &name), where);
        Node& node = found[name];
        api.words(api.AllocatorFree(allocator, name));
        ort::TypeInfo* type = nullptr;
        const auto get_type = inputs ? api.SessionGetInputTypeInfo : api.SessionGetOutputTypeInfo;
        api.check(get_type(session, i, &type), where);
        const std::unique_ptr<ort::TypeInfo, void (*)(ort::TypeInfo*)> owned(type,
                                                                             api.ReleaseTypeInfo);
        const ort::TensorInfo* info = nullptr;
        api.check(api.CastTypeInfoToTensorInfo(type, &info), where);
        if (info == nullptr) {
            continue;  // no tensor: its type stays 0, and fits nothing
        }
        size_t sizes = 0;
        api.check(api.GetTensorElementType(info, &node.type), where);
        api.check(api.GetDimensionsCount(info, &sizes), where);
        node.shape.resize(sizes);
        api.check(api.GetDimensions(info, node.shape.data(), sizes), where);
    }
    return found;
}

}  // namespace

OnnxRuntimeEngine::OnnxRuntimeEngine(const std::string& folder, const Manifest& manifest,
                                     const EngineOptions& options)
    : api_(ort::load(options.library)), folder_(folder), manifest_(manifest) {
    for (const auto& each : manifest.programs) {
        std::error_code none;
        linked_ = linked_ || fs::is_symlink(path_of(folder, each.second.file), none);
    }
    const std::unique_ptr<ort::SessionOptions, void (*)(ort::SessionOptions*)> how(
        session_options(options), api_.ReleaseSessionOptions);
    try {
        for (const auto& each : manifest.programs) {
            const ProgramEntry& entry = each.second;
            ort::Session*& session = sessions_[entry.file];
            if (session == nullptr) {
                session = load(entry.file, how.get());
                if (!options.mapped) {
                    page_out(folder);  // its weights are packed
                }
            }
            try {
                check_signature(session, entry);
            } catch (const Error& error) {
                throw at(path_of(folder, entry.file).u8string(), error);
            }
        }
    } catch (...) {
        close();
        throw;
    }
}

// The bytes that were compared with the manifest, or a path. A file in ORT format has its weights in
// it, and names no other file. Of bytes, weights are sought in one folder, and none behind links:
// those have a path, too. What a path stands for is compared when all is loaded (check_unchanged).
ort::Session* OnnxRuntimeEngine::load(const std::string& file,
                                      const ort::SessionOptions* how) const {
    const fs::path path = path_of(folder_, file);
    std::string data;
    if (path.extension() != ".ort") {
        data = read_listed(folder_, manifest_, file);
        try {
            check_program(data, manifest_.files);
        } catch (const Error& error) {
            throw at(path.u8string(), error);
        }
    }
    ort::Session* session = nullptr;
    const std::string refused = api_.words(
        data.empty() || linked_
            ? api_.CreateSession(api_.env, path.c_str(), how, &session)
            : api_.CreateSessionFromArray(api_.env, data.data(), data.size(), how, &session));
    if (!refused.empty()) {
        throw artifact_error(path.u8string() + ": ONNX Runtime " + api_.version +
                             " cannot load it: " + refused);
    }
    return session;
}

OnnxRuntimeEngine::~OnnxRuntimeEngine() { close(); }

void OnnxRuntimeEngine::close() {
    for (auto& each : sessions_) {
        if (each.second != nullptr) {
            api_.ReleaseSession(each.second);
            each.second = nullptr;
        }
    }
}

std::unique_ptr<Runner> OnnxRuntimeEngine::runner(const std::string& program) {
    const ProgramEntry& entry = manifest_.programs.at(program);
    return std::make_unique<OnnxRuntimeRunner>(api_, sessions_.at(entry.file), entry);
}

ort::SessionOptions* OnnxRuntimeEngine::session_options(const EngineOptions& options) const {
    ort::SessionOptions* how = nullptr;
    const std::string where = "session options";
    api_.check(api_.CreateSessionOptions(&how), where);
    std::unique_ptr<ort::SessionOptions, void (*)(ort::SessionOptions*)> owned(
        how, api_.ReleaseSessionOptions);
    const auto entry = [&](const char* key, const std::string& value = "1") {
        api_.check(api_.AddSessionConfigEntry(how, key, value.c_str()), where);
    };
    if (!linked_) {
        std::error_code none;
        entry("session.model_external_initializers_file_folder_path",
              fs::canonical(fs::u8path(folder_), none).u8string());
    }
    api_.check(api_.SetSessionLogSeverityLevel(how, ort::LOG_FATAL), where);
    if (options.threads > 0) {
        api_.check(api_.SetIntraOpNumThreads(how, options.threads), where);
    }
    if (options.mapped) {
        entry("session.disable_prepacking");
    }
    // Chunks differ in length, and a memory pattern is kept for each length: the peak would double.
    api_.check(api_.DisableMemPattern(how), where);
    entry("session.use_env_allocators");  // the arena that all programs share
    // Each session has threads of its own; spinning, those of the last program would take the cores
    // from the next one.
    entry("session.force_spinning_stop");
    if (manifest_.precision == "int8" && !adds_byte_products()) {
        entry("session.x64quantprecision");  // exact products, which take a third longer
    }
    return owned.release();
}

// The file may have outputs that this program does not name: several programs can share a file.
void OnnxRuntimeEngine::check_signature(const ort::Session* session,
                                        const ProgramEntry& entry) const {
    const auto inputs = nodes(api_, session, true), outputs = nodes(api_, session, false);
    for (const auto& each : inputs) {
        if (!entry.is_input(each.first)) {
            throw artifact_error("input " + each.first + " is not in the manifest");
        }
    }
    for (const bool is_input : {true, false}) {
        for (const TensorSpec& tensor : is_input ? entry.inputs : entry.outputs) {
            const std::string what = (is_input ? "input " : "output ") + tensor.name;
            const auto& known = is_input ? inputs : outputs;
            const auto found = known.find(tensor.name);
            if (found == known.end()) {
                throw artifact_error("no " + what + ", which the manifest names");
            }
            const Node& node = found->second;
            bool fits = node.type == element_type(tensor.dtype) &&
                        node.shape.size() == tensor.shape.size();
            for (size_t i = 0; fits && i < tensor.shape.size(); ++i) {
                fits = tensor.shape[i].named() || node.shape[i] < 0 ||
                       node.shape[i] == tensor.shape[i].number;
            }
            if (!fits) {
                throw artifact_error(what + " has another dtype or shape than the manifest says");
            }
        }
    }
}

}  // namespace lcc
