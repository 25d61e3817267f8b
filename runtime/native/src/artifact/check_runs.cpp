#include <set>

#include "artifact/check.h"
#include "core/error.h"

namespace lcc {

namespace {

bool is_integer(Dtype dtype) { return dtype == Dtype::int32 || dtype == Dtype::int64; }

bool is_fixed(const TensorSpec& tensor) {
    for (const Size& size : tensor.shape) {
        if (size.named()) {
            return false;
        }
    }
    return true;
}

int64_t product(const Shape& shape) {
    int64_t total = 1;
    for (const Size& size : shape) {
        total *= size.named() ? 1 : size.number;
    }
    return total;
}

bool is_one_integer(const TensorSpec& tensor) {
    return is_integer(tensor.dtype) && is_fixed(tensor) && product(tensor.shape) == 1;
}

// One run of one program, for one layer.
class RunCheck {
public:
    RunCheck(const Manifest& manifest, const ProgramEntry& entry, const BuffersByName& buffers,
             const Run& run, const int64_t* layer, std::string where)
        : manifest_(manifest), entry_(entry), buffers_(buffers), run_(run), layer_(layer),
          where_(std::move(where)) {}

    void check() {
        std::set<std::string> names;
        for (const auto* tensors : {&entry_.inputs, &entry_.outputs}) {
            for (const TensorSpec& tensor : *tensors) {
                check_tensor(tensor);
                wanted(names.insert(tensor.name).second, tensor.name + " is there twice");
            }
        }
        for (const auto& [output, source] : entry_.updates) {
            const auto one = run_.bind.find(output), other = run_.bind.find(source);
            wanted(one == run_.bind.end() ||
                       (other != run_.bind.end() && one->second.buffer == other->second.buffer &&
                        one->second.first == other->second.first),
                   output + " is bound otherwise than " + source);
        }
        for (const Pair& pair : run_.swap) {
            check_swap({named(pair.first, layer_), named(pair.second, layer_)}, buffers_, where_);
        }
    }

private:
    void wanted(bool holds, const std::string& message) const {
        if (!holds) {
            throw artifact_error(where_ + ": " + message);
        }
    }

    void check_tensor(const TensorSpec& tensor) {
        const bool input = entry_.is_input(tensor.name);
        const auto bound = run_.bind.find(tensor.name);
        const auto counted = run_.ints.find(tensor.name);
        const bool has_bound = bound != run_.bind.end(), has_ints = counted != run_.ints.end();
        wanted(!input || has_bound != has_ints,
               "input " + tensor.name + " is bound " + (has_bound ? "twice" : "to nothing"));
        int64_t total = 1;
        for (const Size& size : tensor.shape) {
            const int64_t number = size.named() ? 1 : size.number;
            wanted(number >= 1, tensor.name + " has a size below 1");
            wanted(number < (int64_t{1} << 40) / total, tensor.name + " is larger than any memory");
            total *= number;
        }
        if (has_bound) {
            const BufferSpec& spec = buffer(bound->second.buffer);
            if (bound->second.first.empty()) {
                check_whole(tensor, spec);
            } else {
                check_rows(tensor, spec, bound->second.count);
            }
        }
        if (has_ints) {
            wanted(input, tensor.name + " is an output; integers are given to inputs");
            check_ints(tensor, counted->second);
        }
        wanted(run_.read.count(tensor.name) == 0 ||
                   (!input && is_one_integer(tensor) && !has_bound),
               "read: wanted " + tensor.name + " to be an output of one integer, not bound");
    }

    const BufferSpec& buffer(const std::string& name) const {
        const auto found = buffers_.find(named(name, layer_));
        wanted(found != buffers_.end(), "no buffer " + named(name, layer_));
        return *found->second;
    }

    void check_kind(const TensorSpec& tensor, const BufferSpec& spec) const {
        const bool same = tensor.role == spec.role ||
                          (tensor.role == "value" && spec.role == "key");  // a value that is the key
        wanted(same && tensor.dtype == spec.dtype,
               tensor.name + " is " + tensor.role + " " + name_of(tensor.dtype) +
                   ", wanted what fits buffer " + spec.name + ", " + spec.role + " " +
                   name_of(spec.dtype));
    }

    // A tensor that is a whole buffer, in the buffer's own shape.
    void check_whole(const TensorSpec& tensor, const BufferSpec& spec) {
        check_kind(tensor, spec);
        wanted(tensor.shape.size() == spec.shape.size(),
               tensor.name + " has another number of sizes than buffer " + spec.name);
        for (size_t i = 0; i < tensor.shape.size(); ++i) {
            const Size own = resolved(spec.shape[i]);
            if (tensor.shape[i].named()) {
                stands_for(tensor, tensor.shape[i].name, own);
            } else {
                wanted(tensor.shape[i] == own, tensor.name + " has size " +
                                                   tensor.shape[i].shown() + ", buffer " +
                                                   spec.name + " has " + own.shown());
            }
        }
    }

    // A tensor that is some rows of a buffer, along the first axis.
    void check_rows(const TensorSpec& tensor, const BufferSpec& spec, const std::string& count) {
        check_kind(tensor, spec);
        wanted(spec.role != "key" && spec.role != "value",
               tensor.name + ": " + spec.name + " may lie on a device, and is bound whole only");
        int64_t row = 1;
        for (size_t i = 1; i < spec.shape.size(); ++i) {
            row *= resolved(spec.shape[i]).number;
        }
        const int64_t total = numbers(tensor, count);
        wanted(total >= row && (is_fixed(tensor) ? total % row == 0 : total == row),
               tensor.name + " is no rows of buffer " + spec.name);
    }

    void check_ints(const TensorSpec& tensor, const Counted& counted) {
        wanted(is_integer(tensor.dtype), tensor.name + " has no dtype of integers");
        if (counted.count.empty()) {
            wanted(is_one_integer(tensor), tensor.name + ": wanted a tensor of one number");
        } else {
            wanted(numbers(tensor, counted.count) == 1 || is_fixed(tensor),
                   tensor.name + ": wanted a series of numbers");
        }
    }

    // Product of the sizes that are numbers; one string, at most, stands for `count`.
    int64_t numbers(const TensorSpec& tensor, const std::string& count) {
        int strings = 0;
        for (const Size& size : tensor.shape) {
            if (size.named()) {
                wanted(++strings == 1, tensor.name + ": wanted one string at most in its shape");
                stands_for(tensor, size.name, resolved(Size{count, 0}));
            }
        }
        return product(tensor.shape);
    }

    // As a number, but for a counter.
    Size resolved(const Size& size) const {
        const auto found = manifest_.constants.find(size.name);
        return found == manifest_.constants.end() ? size : Size{"", found->second};
    }

    // A string means one size in all tensors of a call.
    void stands_for(const TensorSpec& tensor, const std::string& symbol, const Size& value) {
        const Size& known = symbols_.emplace(symbol, value).first->second;
        wanted(known == value, tensor.name + ": " + symbol + " is " + value.shown() +
                                   ", in another tensor it is " + known.shown());
    }

    const Manifest& manifest_;
    const ProgramEntry& entry_;
    const BuffersByName& buffers_;
    const Run& run_;
    const int64_t* layer_;
    std::string where_;
    std::map<std::string, Size> symbols_;
};

// Whether any target has this tensor in a program of the run.
bool known_somewhere(const Manifest& whole, const Run& run, const std::string& tensor) {
    std::vector<const Programs*> versions{&whole.programs};
    for (const Built& built : whole.also) {
        versions.push_back(&built.programs);
    }
    for (const Programs* programs : versions) {
        for (const std::string& name : {run.run, run.one.value_or(run.run)}) {
            const auto found = programs->find(name);
            if (found != programs->end() && found->second.tensor(tensor) != nullptr) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace

void check_run(const Manifest& manifest, const Manifest& whole, const BuffersByName& buffers,
               const Run& run, const std::string& where) {
    for (const std::string& name : {run.run, run.one.value_or(run.run)}) {
        const auto entry = manifest.programs.find(name);
        if (entry == manifest.programs.end()) {
            throw artifact_error(where + ": no program " + name);
        }
        if (run.each.empty()) {
            RunCheck(manifest, entry->second, buffers, run, nullptr, where + ", run " + name)
                .check();
        }
        for (int64_t layer : run.each) {
            const std::string here = where + ", run " + name + ", layer " + std::to_string(layer);
            if (layer < 0 || layer >= static_cast<int64_t>(manifest.kv_heads.size())) {
                throw artifact_error(here + ": the model has no such layer");
            }
            RunCheck(manifest, entry->second, buffers, run, &layer, here).check();
        }
    }
    Names tensors;
    for (const auto& each : run.bind) {
        tensors.push_back(each.first);
    }
    for (const auto& each : run.ints) {
        tensors.push_back(each.first);
    }
    for (const auto& each : run.read) {
        tensors.push_back(each.first);
    }
    for (const std::string& tensor : tensors) {
        if (!known_somewhere(whole, run, tensor)) {
            throw artifact_error(where + ", run " + run.run + ": it has no tensor " + tensor);
        }
    }
}

void check_swap(const Pair& pair, const BuffersByName& buffers, const std::string& where) {
    for (const std::string& name : {pair.first, pair.second}) {
        if (buffers.count(name) == 0) {
            throw artifact_error(where + ": swap: no buffer " + name);
        }
    }
    const BufferSpec& one = *buffers.at(pair.first);
    const BufferSpec& other = *buffers.at(pair.second);
    if (one.role != other.role || one.dtype != other.dtype || !(one.shape == other.shape) ||
        one.axis != other.axis) {
        throw artifact_error(where + ": swap: " + one.name + " and " + other.name +
                             " differ; wanted two of one role, dtype, shape and axis");
    }
}

}  // namespace lcc
