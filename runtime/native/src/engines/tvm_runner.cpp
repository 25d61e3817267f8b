#include "engines/tvm_runner.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace lcc {

namespace {

constexpr int64_t CPU_DEVICE = 1, NAIVE_ALLOCATOR = 1;  // memory that is not hoarded

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % ALIGNMENT == 0; }

tvm::DataType data_type(Dtype dtype) {
    const bool floats = dtype == Dtype::float32 || dtype == Dtype::float16;
    return {floats ? tvm::CODE_FLOAT : tvm::CODE_INT, static_cast<uint8_t>(8 * width(dtype)), 1};
}

std::string shown(const std::vector<int64_t>& shape) {
    std::string text;
    for (int64_t size : shape) {
        text += (text.empty() ? "" : ", ") + std::to_string(size);
    }
    return "[" + text + "]";
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string last_line(std::string text) {
    text.erase(text.find_last_not_of(" \n\r\t") + 1);
    return text.substr(text.rfind('\n') + 1);
}

}  // namespace

TvmMachine::TvmMachine(const tvm::Api& api, const std::string& library, int threads)
    : api_(api), threads_(threads) {
    try {
        const tvm::Value module = api.load_module(library);
        const tvm::Value load = api.function(module, "vm_load_executable");
        if (load.none()) {
            throw tvm::Failure("no function vm_load_executable");
        }
        machine_ = api.call(load, {});
        const tvm::Value begin = api.function(machine_, "vm_initialization");
        api.call(begin, {CPU_DEVICE, int64_t{0}, NAIVE_ALLOCATOR});
    } catch (const tvm::Failure& failure) {
        throw artifact_error(library + ": TVM cannot load it: " + first_line(failure.what()));
    }
}

tvm::Value TvmMachine::function(const std::string& name) {
    const std::lock_guard<std::mutex> lock(mutex_);
    tvm::Value found;
    try {
        found = api_.function(machine_, name);
    } catch (const tvm::Failure& failure) {
        throw artifact_error("no function " + name + " (" + first_line(failure.what()) + ")");
    }
    if (found.none()) {
        throw artifact_error("no function " + name);
    }
    return found;
}

tvm::Value TvmMachine::call(const tvm::Value& function, const std::vector<tvm::Any>& arguments) {
    const std::lock_guard<std::mutex> lock(mutex_);
    set_threads();
    return api_.call(function, arguments);
}

void TvmMachine::set_threads() const {
    thread_local int set = 0;
    if (set != threads_) {
        api_.set_threads(threads_);
        set = threads_;
    }
}

TvmRunner::TvmRunner(std::shared_ptr<TvmMachine> machine, const ProgramEntry& entry,
                     const tvm::Value& function, const std::vector<tvm::Any>& weights)
    : machine_(std::move(machine)), entry_(entry), function_(function),
      inputs_(entry.inputs.size()), arguments_(entry.inputs.size()) {
    for (size_t i = 0; i < entry.inputs.size(); ++i) {
        places_[entry.inputs[i].name] = i;
    }
    arguments_.insert(arguments_.end(), weights.begin(), weights.end());
}

void TvmRunner::bind(const std::string& tensor, const View& view) {
    const TensorSpec* spec = entry_.tensor(tensor);
    if (spec == nullptr) {
        throw artifact_error(entry_.file + ": no input or output " + tensor);
    }
    const auto place = places_.find(tensor);
    if (place == places_.end()) {
        check(*spec, view);
        outputs_[tensor] = view;
        return;
    }
    Input& input = inputs_[place->second];
    if (input.bound && input.view.data == view.data && input.view.shape == view.shape) {
        return;
    }
    check(*spec, view);
    checked_ = checked_ && input.bound && input.view.shape == view.shape;
    if (aligned(view.data)) {
        input.tensor = tensor_of(view);
        input.copy.reset();
    } else if (input.copy == nullptr || input.copy->view().shape != view.shape) {
        input.copy = std::make_unique<Tensor>(view.dtype, view.shape);
        input.tensor = tensor_of(input.copy->view());
    }
    input.view = view;
    input.bound = true;
    arguments_[place->second] = input.tensor.any();
}

void TvmRunner::run() {
    if (!checked_) {
        check_all();
        checked_ = true;
    }
    for (const Input& input : inputs_) {
        if (input.copy != nullptr) {
            std::memcpy(input.copy->view().data, input.view.data, input.view.bytes());
        }
    }
    tvm::Value results;
    try {
        results = machine_->call(function_, arguments_);
        for (size_t i = 0; i < entry_.outputs.size(); ++i) {
            const TensorSpec& spec = entry_.outputs[i];
            if (target(spec.name) == nullptr) {
                continue;
            }
            if (results.type() == tvm::ARRAY) {
                keep(spec, machine_->api().item(results, i));
            } else {
                keep(spec, results);
            }
        }
    } catch (const tvm::Failure& failure) {  // a kernel refuses
        throw target_error(entry_.file + ": " + last_line(failure.what()));
    }
}

// Where an output goes; nullptr = it is not wanted.
const View* TvmRunner::target(const std::string& output) const {
    const auto own = outputs_.find(output);
    if (own != outputs_.end()) {
        return &own->second;
    }
    const auto source = entry_.updates.find(output);
    return source == entry_.updates.end() ? nullptr : &inputs_[places_.at(source->second)].view;
}

// Copies a result to where it is bound, unless the kernels have written it there.
void TvmRunner::keep(const TensorSpec& spec, const tvm::Value& result) {
    if (result.type() != tvm::TENSOR) {
        throw artifact_error(entry_.file + ": " + spec.name + " is no tensor");
    }
    const View& view = *target(spec.name);
    const tvm::TensorData& tensor = result.tensor();
    const char* data = static_cast<const char*>(tensor.data) + tensor.offset;
    if (data == view.data) {
        return;
    }
    const std::vector<int64_t> shape(tensor.shape, tensor.shape + tensor.dimensions);
    if (shape != view.shape || tensor.dtype.bits != 8 * width(view.dtype)) {
        throw cache_error(entry_.file + ": " + spec.name + " came as " + shown(shape) +
                          ", wanted " + shown(view.shape));
    }
    std::memcpy(view.data, data, view.bytes());
}

tvm::Value TvmRunner::tensor_of(const View& view) const {
    return machine_->api().tensor(view.data, data_type(view.dtype), view.shape);
}

// The view is what the signature says: kernels trust it.
void TvmRunner::check(const TensorSpec& spec, const View& view) const {
    bool fits = view.dtype == spec.dtype && view.shape.size() == spec.shape.size();
    for (size_t i = 0; fits && i < spec.shape.size(); ++i) {
        fits = spec.shape[i].named() || spec.shape[i].number == view.shape[i];
    }
    if (!fits) {
        std::string wanted;
        for (const Size& size : spec.shape) {
            wanted += (wanted.empty() ? "" : ", ") + size.shown();
        }
        throw cache_error(entry_.file + ": " + spec.name + " is " + name_of(view.dtype) + " " +
                          shown(view.shape) + ", wanted " + name_of(spec.dtype) + " [" + wanted +
                          "]");
    }
}

// Sizes of one name are the same in all inputs, and none is 0.
void TvmRunner::check_all() const {
    std::map<std::string, int64_t> sizes;
    for (size_t i = 0; i < inputs_.size(); ++i) {
        const TensorSpec& spec = entry_.inputs[i];
        if (!inputs_[i].bound) {
            throw artifact_error(entry_.file + ": nothing is bound to " + spec.name);
        }
        for (size_t axis = 0; axis < spec.shape.size(); ++axis) {
            if (!spec.shape[axis].named()) {
                continue;
            }
            const int64_t size = inputs_[i].view.shape[axis];
            const int64_t wanted = sizes.emplace(spec.shape[axis].name, size).first->second;
            if (size != wanted || size == 0) {
                throw cache_error(entry_.file + ": " + spec.shape[axis].name + " is " +
                                  std::to_string(size) + " in " + spec.name + ", wanted " +
                                  (wanted == 0 ? "at least 1" : std::to_string(wanted)));
            }
        }
    }
}

}  // namespace lcc
