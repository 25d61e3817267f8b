// What lcc calls of ONNX Runtime's C interface, without its header.
//
// The interface is a table of function pointers that is only ever appended to ("NEVER remove or
// rearrange the members", onnxruntime_c_api.cc), so a function is known by its place in the table.
// The places are those of onnxruntime_c_api.h; all used here exist since version 8 of the interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace lcc::ort {

struct Env;
struct Status;
struct MemoryInfo;
struct ArenaCfg;
struct SessionOptions;
struct Session;
struct RunOptions;
struct IoBinding;
struct Value;
struct TypeInfo;
struct TensorInfo;
struct Allocator;

#if defined(_WIN32)
using PathChar = wchar_t;
#else
using PathChar = char;
#endif

// Values of its enumerations.
constexpr int LOG_FATAL = 4;  // what it says of an error is in the status
constexpr int DEVICE_ALLOCATOR = 0, ARENA_ALLOCATOR = 1, MEMORY_DEFAULT = 0;
constexpr int FLOAT = 1, INT32 = 6, INT64 = 7, FLOAT16 = 10;

// name, place in the table, result, parameters
#define LCC_ORT_FUNCTIONS(X)                                                                       \
    X(GetErrorMessage, 2, const char*, (const Status*))                                            \
    X(CreateEnv, 3, Status*, (int level, const char* name, Env**))                                 \
    X(CreateSession, 7, Status*, (const Env*, const PathChar*, const SessionOptions*, Session**))  \
    X(CreateSessionFromArray, 8, Status*,                                                          \
      (const Env*, const void* data, size_t bytes, const SessionOptions*, Session**))              \
    X(CreateSessionOptions, 10, Status*, (SessionOptions**))                                       \
    X(DisableMemPattern, 17, Status*, (SessionOptions*))                                           \
    X(SetSessionLogSeverityLevel, 22, Status*, (SessionOptions*, int))                             \
    X(SetIntraOpNumThreads, 24, Status*, (SessionOptions*, int))                                   \
    X(SessionGetInputCount, 30, Status*, (const Session*, size_t*))                                \
    X(SessionGetOutputCount, 31, Status*, (const Session*, size_t*))                               \
    X(SessionGetInputTypeInfo, 33, Status*, (const Session*, size_t, TypeInfo**))                  \
    X(SessionGetOutputTypeInfo, 34, Status*, (const Session*, size_t, TypeInfo**))                 \
    X(SessionGetInputName, 36, Status*, (const Session*, size_t, Allocator*, char**))              \
    X(SessionGetOutputName, 37, Status*, (const Session*, size_t, Allocator*, char**))             \
    X(CreateTensorWithDataAsOrtValue, 49, Status*,                                                 \
      (const MemoryInfo*, void*, size_t bytes, const int64_t* shape, size_t, int type, Value**))   \
    X(CastTypeInfoToTensorInfo, 55, Status*, (const TypeInfo*, const TensorInfo**))                \
    X(GetTensorElementType, 60, Status*, (const TensorInfo*, int*))                                \
    X(GetDimensionsCount, 61, Status*, (const TensorInfo*, size_t*))                               \
    X(GetDimensions, 62, Status*, (const TensorInfo*, int64_t*, size_t))                           \
    X(CreateMemoryInfo, 68, Status*,                                                               \
      (const char* name, int allocator, int id, int memory, MemoryInfo**))                         \
    X(AllocatorFree, 76, Status*, (Allocator*, void*))                                             \
    X(GetAllocatorWithDefaultOptions, 78, Status*, (Allocator**))                                  \
    X(ReleaseStatus, 93, void, (Status*))                                                          \
    X(ReleaseMemoryInfo, 94, void, (MemoryInfo*))                                                  \
    X(ReleaseSession, 95, void, (Session*))                                                        \
    X(ReleaseValue, 96, void, (Value*))                                                            \
    X(ReleaseTypeInfo, 98, void, (TypeInfo*))                                                      \
    X(ReleaseSessionOptions, 100, void, (SessionOptions*))                                         \
    X(AddSessionConfigEntry, 130, Status*, (SessionOptions*, const char* key, const char* value))  \
    X(RunWithBinding, 133, Status*, (Session*, const RunOptions*, const IoBinding*))               \
    X(CreateIoBinding, 134, Status*, (Session*, IoBinding**))                                      \
    X(ReleaseIoBinding, 135, void, (IoBinding*))                                                   \
    X(BindInput, 136, Status*, (IoBinding*, const char* name, const Value*))                       \
    X(BindOutput, 137, Status*, (IoBinding*, const char* name, const Value*))                      \
    X(CreateAndRegisterAllocator, 144, Status*, (Env*, const MemoryInfo*, const ArenaCfg*))        \
    X(ReleaseArenaCfg, 157, void, (ArenaCfg*))                                                     \
    X(CreateArenaCfgV2, 164, Status*,                                                              \
      (const char* const* keys, const size_t* values, size_t, ArenaCfg**))

// A loaded library with its table and its environment, which live until the process ends.
struct Api {
#define LCC_ORT_MEMBER(name, place, result, parameters) result(*name) parameters = nullptr;
    LCC_ORT_FUNCTIONS(LCC_ORT_MEMBER)
#undef LCC_ORT_MEMBER

    std::string version;  // of the library, such as "1.32.0"
    Env* env = nullptr;
    MemoryInfo* host = nullptr;  // the host's memory, where all tensors lie

    // Throws Error (target) with ONNX Runtime's own words, `where` in front.
    void check(Status* status, const std::string& where) const;
    // The same words, without an error; "" = there was none.
    std::string words(Status* status) const;
};

// The library at a path; "" = what LCC_ONNXRUNTIME names, else what the system finds. The same path
// gives the same one. Throws Error (target) that says what is missing.
const Api& load(const std::string& path);

}  // namespace lcc::ort
