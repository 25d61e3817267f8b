#include "engines/tvm_api.h"

#include <memory>
#include <mutex>

#include "core/error.h"
#include "engines/library.h"
#include "engines/tvm_library.h"

namespace lcc::tvm {

namespace {

struct Bytes {
    const char* data;
    size_t size;
};

// What follows the header of an error.
struct ErrorCell {
    Bytes kind, message;
};

// DLPack's tensor with an owner. The shape and the strides are the owner's.
struct ManagedTensor {
    TensorData tensor;
    void* owner;
    void (*deleter)(ManagedTensor*);

    std::vector<int64_t> shape, strides;
};

int (*release_object)(void*) = nullptr;

template <typename Cell>
const Cell& behind_header(const void* object) {
    return *reinterpret_cast<const Cell*>(static_cast<const char*>(object) + sizeof(Object));
}

}  // namespace

Value& Value::operator=(Value&& other) noexcept {
    std::swap(any_, other.any_);
    return *this;
}

Value::~Value() {
    if (any_.type >= OBJECT) {
        release_object(any_.object);
    }
}

const TensorData& Value::tensor() const { return behind_header<TensorData>(any_.object); }

const Api& Api::load(const std::string& path) {
    static std::mutex mutex;
    static Api* loaded = nullptr;  // for ever: kernels may run while the process ends
    static std::string from;
    const std::lock_guard<std::mutex> lock(mutex);
    if (loaded == nullptr) {
        loaded = new Api(path);
        from = path;
    } else if (path != from) {
        throw target_error("TVM was loaded from \"" + from + "\" by this process, and cannot be " +
                           "loaded again from \"" + path + "\"; name one of them");
    }
    return *loaded;
}

Api::Api(const std::string& path) {
    const Libraries libraries = open_libraries(path);
    where_ = libraries.path;
    const auto symbol = [&](const char* name) {
        void* found = library_symbol(libraries.ffi, name);
        if (found == nullptr) {
            throw target_error(where_ + ": no function " + name + "; wanted " + WANTED);
        }
        return found;
    };
    struct {
        uint32_t major, minor, patch;
    } version{};
    reinterpret_cast<void (*)(void*)>(symbol("TVMFFIGetVersion"))(&version);
    if (version.major != 0 || version.minor != 1 || version.patch < 14) {
        throw target_error(where_ + ": tvm_ffi " + std::to_string(version.major) + "." +
                           std::to_string(version.minor) + "." + std::to_string(version.patch) +
                           ", wanted " + WANTED);
    }
    release_object = reinterpret_cast<int (*)(void*)>(symbol("TVMFFIObjectDecRef"));
    get_global_ = reinterpret_cast<decltype(get_global_)>(symbol("TVMFFIFunctionGetGlobal"));
    call_ = reinterpret_cast<decltype(call_)>(symbol("TVMFFIFunctionCall"));
    take_error_ = reinterpret_cast<decltype(take_error_)>(symbol("TVMFFIErrorMoveFromRaised"));
    tensor_of_ = reinterpret_cast<decltype(tensor_of_)>(symbol("TVMFFITensorFromDLPack"));
    module_function_ = function("ffi.ModuleGetFunction");
    array_item_ = function("ffi.ArrayGetItem");
    array_ = function("ffi.Array");
    load_file_ = function("ffi.ModuleLoadFromFile");
    keep_ = function("ffi.ModuleGlobalsAdd");
    config_threads_ = function("runtime.config_threadpool");
}

void Api::check(int status) const {
    if (status == 0) {
        return;
    }
    void* error = nullptr;
    take_error_(&error);
    std::string message = "unknown";
    if (error != nullptr) {
        const auto& cell = behind_header<ErrorCell>(error);
        message = std::string(cell.message.data, cell.message.size);
        release_object(error);
    }
    throw Failure(message);
}

Value Api::function(const char* name) const {
    const Bytes bytes{name, std::char_traits<char>::length(name)};
    void* found = nullptr;
    check(get_global_(&bytes, &found));
    if (found == nullptr) {
        throw target_error(where_ + ": TVM has no function " + name + "; wanted " + WANTED);
    }
    return Value(Any(static_cast<Object*>(found)));
}

Value Api::function(const Value& module, const std::string& name) const {
    return call(module_function_, {module.any(), name.c_str(), int64_t{0}});
}

Value Api::call(const Value& function, const std::vector<Any>& arguments) const {
    Any result;
    check(call_(function.any().object, arguments.data(), static_cast<int32_t>(arguments.size()),
                &result));
    return Value(result);
}

Value Api::tensor(void* data, DataType dtype, const std::vector<int64_t>& shape) const {
    auto managed = std::make_unique<ManagedTensor>();
    managed->shape = shape;
    managed->strides.assign(shape.size(), 1);
    for (size_t i = shape.size(); i-- > 1;) {
        managed->strides[i - 1] = managed->strides[i] * shape[i];
    }
    managed->tensor = {data, CPU, 0, static_cast<int32_t>(shape.size()), dtype,
                       managed->shape.data(), managed->strides.data(), 0};
    managed->owner = nullptr;
    managed->deleter = [](ManagedTensor* self) { delete self; };
    void* made = nullptr;
    check(tensor_of_(managed.get(), 0, 0, &made));
    managed.release();  // the tensor's now
    return Value(Any(static_cast<Object*>(made)));
}

Value Api::item(const Value& array, size_t index) const {
    return call(array_item_, {array.any(), static_cast<int64_t>(index)});
}

// A pool has as many threads as there are cores in the list that it is made with. Left alone, TVM
// takes every second core, whether or not two of them are one.
void Api::set_threads(int count) const {
    constexpr int64_t any_core = -3;
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) {
        names.push_back(std::to_string(i % cores()));
    }
    const std::vector<Any> each = [&] {
        std::vector<Any> texts;
        for (const std::string& name : names) {
            texts.emplace_back(name.c_str());
        }
        return texts;
    }();
    const Value list = call(array_, each);
    call(config_threads_, {any_core, static_cast<int64_t>(count), list.any()});
}

Value Api::load_module(const std::string& path) const {
    Value module = call(load_file_, {path.c_str()});
    call(keep_, {module.any()});
    return module;
}

}  // namespace lcc::tvm
