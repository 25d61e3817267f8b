// What lcc calls of TVM's runtime, without its headers: the C interface of tvm_ffi.
//
// TVM's own interface is a table of named functions; a call takes and returns values of 16 bytes.
// Their layout, and that of objects and tensors (DLPack), is that of tvm_ffi 0.1: tvm/ffi/c_api.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace lcc::tvm {

// Types of values; those from OBJECT on are counted references.
constexpr int32_t NONE = 0, INT = 1, RAW_TEXT = 8, OBJECT = 64, TENSOR = 70, ARRAY = 71;

// The header of every object.
struct Object {
    uint64_t references;
    int32_t type;
    uint32_t padding;
    void (*deleter)(void*, int);
};

struct Any {
    int32_t type = NONE;
    uint32_t padding = 0;
    union {
        int64_t integer;
        const char* text;
        Object* object;
    };

    Any() : integer(0) {}
    Any(int64_t value) : type(INT), integer(value) {}
    Any(const char* value) : type(RAW_TEXT), integer(0) { text = value; }
    Any(Object* value) : type(value->type), integer(0) { object = value; }
};

// DLPack's tensor.
struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};
struct TensorData {
    void* data;
    int32_t device, device_id;
    int32_t dimensions;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;  // in numbers; nullptr = C-contiguous
    uint64_t offset;   // in bytes
};

constexpr uint8_t CODE_INT = 0, CODE_UINT = 1, CODE_FLOAT = 2;
constexpr int32_t CPU = 1;

// What TVM says where a call fails.
class Failure : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// A value that is owned.
class Value {
public:
    Value() = default;
    explicit Value(const Any& owned) : any_(owned) {}
    Value(Value&& other) noexcept : any_(other.any_) { other.any_ = Any(); }
    Value& operator=(Value&& other) noexcept;
    ~Value();

    bool none() const { return any_.type == NONE; }
    int32_t type() const { return any_.type; }
    const Any& any() const { return any_; }
    const TensorData& tensor() const;  // of a value of type TENSOR

private:
    Any any_;
};

// The loaded runtime.
class Api {
public:
    // `path`: a folder with the libraries, one of them, or the folder of Python's packages; "" =
    // what LCC_TVM names, else what the system finds. They stay loaded until the process ends:
    // another path later is an error.
    //
    // Throws Error (target) that names what is missing or too old.
    static const Api& load(const std::string& path);

    // A function by its name. Throws Error (target) where TVM has none.
    Value function(const char* name) const;
    // One of a module. None where it has none.
    Value function(const Value& module, const std::string& name) const;

    // Throws Failure.
    Value call(const Value& function, const std::vector<Any>& arguments) const;

    // A tensor of memory that someone else owns and that outlives it.
    Value tensor(void* data, DataType dtype, const std::vector<int64_t>& shape) const;

    // An element of an array that a function has returned.
    Value item(const Value& array, size_t index) const;

    // Threads of all kernels that this thread runs.
    void set_threads(int count) const;

    // A library of functions, which stays loaded. Throws Failure.
    Value load_module(const std::string& path) const;

private:
    explicit Api(const std::string& path);
    void check(int status) const;

    int (*get_global_)(const void* name, void** out) = nullptr;
    int (*call_)(void* function, const Any* arguments, int32_t count, Any* result) = nullptr;
    void (*take_error_)(void** result) = nullptr;
    int (*tensor_of_)(void* managed, int32_t align, int32_t contiguous, void** out) = nullptr;
    std::string where_;
    Value module_function_, array_item_, array_, load_file_, keep_, config_threads_;
};

}  // namespace lcc::tvm
