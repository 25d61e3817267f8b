#include "engines/ort_api.h"

#include <cstdlib>
#include <map>
#include <mutex>

#include "core/error.h"
#include "engines/library.h"

namespace lcc::ort {

namespace {

constexpr uint32_t API_VERSION = 22;              // of ONNX Runtime 1.22
constexpr size_t ARENA_BYTES = size_t{64} << 20;  // of addresses; taken where something is written

// The base of the interface: what OrtGetApiBase returns.
struct ApiBase {
    const void* const* (*get_api)(uint32_t version);
    const char* (*get_version)();
};

std::string library_name(const std::string& path) {
    if (!path.empty()) {
        return path;
    }
    const char* named = std::getenv("LCC_ONNXRUNTIME");
    if (named != nullptr && *named != '\0') {
        return named;
    }
#if defined(_WIN32)
    return "onnxruntime.dll";
#elif defined(__APPLE__)
    return "libonnxruntime.dylib";
#else
    return "libonnxruntime.so";
#endif
}

// One arena for all programs, which run one after the other: what a chunk took serves the LM head
// next. It begins with one region that is large enough for most chunks.
void register_arena(const Api& api) {
    MemoryInfo* place = nullptr;
    api.check(api.CreateMemoryInfo("Cpu", ARENA_ALLOCATOR, 0, MEMORY_DEFAULT, &place), "memory");
    const char* const keys[] = {"initial_chunk_size_bytes"};
    const size_t values[] = {ARENA_BYTES};
    ArenaCfg* config = nullptr;
    std::string refused = api.words(api.CreateArenaCfgV2(keys, values, 1, &config));
    if (refused.empty()) {
        // Someone else in this process may have registered one: then it is used.
        api.words(api.CreateAndRegisterAllocator(api.env, place, config));
        api.ReleaseArenaCfg(config);
    }
    api.ReleaseMemoryInfo(place);
}

std::unique_ptr<Api> open(const std::string& path) {
    void* library = open_library(path);
    if (library == nullptr) {
        throw target_error(path + ": cannot be loaded (" + library_error() +
                           "); give the path of ONNX Runtime's library: --engine, "
                           "engine_library, or the variable LCC_ONNXRUNTIME");
    }
    const auto get_base =
        reinterpret_cast<const ApiBase* (*)()>(library_symbol(library, "OrtGetApiBase"));
    if (get_base == nullptr) {
        throw target_error(path + ": it has no function OrtGetApiBase; wanted the shared library "
                                  "of ONNX Runtime");
    }
    auto api = std::make_unique<Api>();
    api->version = get_base()->get_version();
    const void* const* table = get_base()->get_api(API_VERSION);
    if (table == nullptr) {
        throw target_error(path + ": ONNX Runtime " + api->version + ", wanted 1." +
                           std::to_string(API_VERSION) + " or newer");
    }
    std::string missing;
#define LCC_ORT_LOAD(name, place, result, parameters)                            \
    api->name = reinterpret_cast<result(*) parameters>(                          \
        reinterpret_cast<uintptr_t>(table[place]));                              \
    missing += api->name != nullptr ? "" : std::string(missing.empty() ? "" : ", ") + #name;
    LCC_ORT_FUNCTIONS(LCC_ORT_LOAD)
#undef LCC_ORT_LOAD
    if (!missing.empty()) {
        throw target_error(path + ": ONNX Runtime " + api->version + " lacks " + missing);
    }
    api->check(api->CreateEnv(LOG_FATAL, "lcc", &api->env), path);
    api->check(api->CreateMemoryInfo("Cpu", DEVICE_ALLOCATOR, 0, MEMORY_DEFAULT, &api->host), path);
    register_arena(*api);
    return api;
}

}  // namespace

std::string Api::words(Status* status) const {
    if (status == nullptr) {
        return "";
    }
    std::string text = GetErrorMessage(status);
    ReleaseStatus(status);
    text = text.substr(0, text.find('\n'));
    return text.empty() ? "it does not say why" : text;
}

void Api::check(Status* status, const std::string& where) const {
    const std::string text = words(status);
    if (!text.empty()) {
        throw target_error(where + ": ONNX Runtime " + version + ": " + text);
    }
}

const Api& load(const std::string& path) {
    static std::mutex mutex;
    static std::map<std::string, std::unique_ptr<Api>>* opened =
        new std::map<std::string, std::unique_ptr<Api>>();  // never closed: its threads may run
    const std::lock_guard<std::mutex> lock(mutex);
    const std::string name = library_name(path);
    std::unique_ptr<Api>& api = (*opened)[name];
    if (api == nullptr) {
        api = open(name);
    }
    return *api;
}

}  // namespace lcc::ort
