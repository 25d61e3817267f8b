#include "core/call.h"

#include <algorithm>

#include "artifact/check.h"
#include "core/error.h"

namespace lcc {

namespace {

void set_integer(const Tensor& tensor, int64_t place, int64_t value) {
    if (tensor.view().dtype == Dtype::int64) {
        tensor.as<int64_t>()[place] = value;
    } else {
        tensor.as<int32_t>()[place] = static_cast<int32_t>(value);
    }
}

int64_t integer(const Tensor& tensor) {
    return tensor.view().dtype == Dtype::int64 ? *tensor.as<int64_t>() : *tensor.as<int32_t>();
}

int64_t product(const std::vector<int64_t>& shape, size_t begin) {
    int64_t total = 1;
    for (size_t i = begin; i < shape.size(); ++i) {
        total *= shape[i];
    }
    return total;
}

}  // namespace

Call::Call(const Run& run, const std::string& program, const int64_t* layer,
           const Manifest& manifest, Engine& engine, Numbers& numbers, const Buffers& buffers)
    : layer_(layer == nullptr ? 0 : *layer), has_layer_(layer != nullptr),
      runner_(engine.runner(program)) {
    const ProgramEntry& entry = manifest.programs.at(program);
    for (const auto& [tensor, bound] : run.bind) {
        if (const TensorSpec* spec = entry.tensor(tensor)) {
            const Buffer& buffer = buffers.at(named(bound.buffer, layer));
            if (bound.first.empty()) {
                whole_.push_back({tensor, &buffer, 0});
            } else {
                add_part(*spec, bound.first, bound.count, &buffer, numbers, buffers);
            }
        }
    }
    for (const auto& [tensor, counted] : run.ints) {
        if (const TensorSpec* spec = entry.tensor(tensor)) {
            if (counted.count.empty()) {
                given_.push_back(add_single(*spec, &numbers.at(counted.first)));
            } else {
                add_part(*spec, counted.first, counted.count, nullptr, numbers, buffers);
            }
        }
    }
    for (const auto& [tensor, counter] : run.read) {
        if (const TensorSpec* spec = entry.tensor(tensor)) {
            read_.push_back(add_single(*spec, &numbers.at(counter)));
        }
    }
    for (const Pair& pair : run.swap) {
        swaps_.emplace_back(&buffers.at(named(pair.first, layer)),
                            &buffers.at(named(pair.second, layer)));
    }
}

Call::Single Call::add_single(const TensorSpec& spec, int64_t* number) {
    const std::vector<int64_t> shape(spec.shape.size(), 1);
    Single single{std::make_unique<Tensor>(spec.dtype, shape), number};
    runner_->bind(spec.name, single.memory->view());
    return single;
}

// Where the shape has no string, its size says how many rows are taken, and not COUNT.
void Call::add_part(const TensorSpec& spec, const std::string& first, const std::string& count,
                    const Buffer* buffer, Numbers& numbers, const Buffers& buffers) {
    Part part{spec.name, buffer, nullptr, &numbers.at(first), &numbers.at(count), 0, {}, -1};
    int64_t total = 1;
    for (size_t i = 0; i < spec.shape.size(); ++i) {
        if (spec.shape[i].named()) {
            part.open = static_cast<int>(i);
        }
        part.shape.push_back(spec.shape[i].named() ? 1 : spec.shape[i].number);
        total *= part.shape.back();
    }
    if (part.open < 0) {
        const int64_t row = buffer == nullptr ? 1 : product(buffer->tensor->view().shape, 1);
        part.fixed = total / row;
    }
    if (buffer == nullptr) {
        part.counted = std::make_unique<Tensor>(
            spec.dtype, std::vector<int64_t>{std::max(buffers.longest(), part.fixed)});
    }
    parts_.push_back(std::move(part));
}

void Call::bind(const Part& part) {
    const int64_t first = *part.first;
    const int64_t rows = part.open < 0 ? part.fixed : *part.count;
    View view;
    if (part.buffer != nullptr) {
        view = Buffers::rows(*part.buffer, first, first + rows);
    } else {
        if (rows < 0 || rows > part.counted->rows()) {
            throw artifact_error(part.tensor + ": " + std::to_string(rows) + " numbers, " +
                                 std::to_string(part.counted->rows()) + " at most");
        }
        for (int64_t i = 0; i < rows; ++i) {
            set_integer(*part.counted, i, first + i);
        }
        view = part.counted->part(0, rows);
    }
    view.shape = part.shape;
    if (part.open >= 0) {
        view.shape[static_cast<size_t>(part.open)] = rows;
    }
    runner_->bind(part.tensor, view);
}

void Call::operator()() {
    for (Whole& each : whole_) {
        const Tensor& tensor = *each.buffer->tensor;
        if (each.bound != tensor.id()) {
            runner_->bind(each.tensor, tensor.view());
            each.bound = tensor.id();
        }
    }
    for (const Single& each : given_) {
        set_integer(*each.memory, 0, *each.number);
    }
    for (const Part& each : parts_) {
        bind(each);
    }
    runner_->run();
    for (const Single& each : read_) {
        *each.number = integer(*each.memory);
    }
    for (const auto& [one, other] : swaps_) {
        Buffers::swap(*one, *other);
    }
}

}  // namespace lcc
