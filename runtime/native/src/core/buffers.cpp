#include "core/buffers.h"

#include <algorithm>

#include "core/error.h"

namespace lcc {

Buffers::Buffers(const Manifest& manifest, const Numbers& numbers) {
    for (const BufferSpec& spec : manifest.buffers) {
        Buffer& buffer = buffers_[spec.name];
        buffer.spec = spec;
        allocate(buffer, numbers);
        names_.push_back(spec.name);
        longest_ = std::max(longest_, buffer.tensor->rows(spec.axis));
    }
}

void Buffers::allocate(Buffer& buffer, const Numbers& numbers) {
    std::vector<int64_t> shape;
    for (const Size& size : buffer.spec.shape) {
        shape.push_back(size.named() ? std::max<int64_t>(1, numbers.at(size.name)) : size.number);
    }
    buffer.tensor = std::make_unique<Tensor>(buffer.spec.dtype, shape);
}

Buffer& Buffers::at(const std::string& name) const {
    const auto found = buffers_.find(name);
    if (found == buffers_.end()) {
        throw artifact_error("no buffer " + name);
    }
    return found->second;
}

void Buffers::grow(const std::string& name, const Numbers& numbers) {
    allocate(at(name), numbers);
    grown_.push_back(name);
}

void Buffers::shrink() {
    for (const std::string& name : grown_) {
        Numbers sizes;
        for (const Size& size : at(name).spec.shape) {
            if (size.named()) {
                sizes[size.name] = 1;
            }
        }
        allocate(at(name), sizes);
    }
    grown_.clear();
}

View Buffers::rows(const Buffer& buffer, int64_t first, int64_t end) {
    if (first < 0 || first > end || end > buffer.tensor->rows()) {
        throw artifact_error(buffer.spec.name + ": rows " + std::to_string(first) + " .. " +
                             std::to_string(end - 1) + " of " +
                             std::to_string(buffer.tensor->rows()));
    }
    return buffer.tensor->part(first, end);
}

void Buffers::each_saved(const Numbers& numbers,
                         const std::function<void(Buffer&, int64_t, int64_t)>& visit) const {
    for (const std::string& name : names_) {
        Buffer& buffer = at(name);
        if (!buffer.spec.saved) {
            continue;
        }
        const int64_t first = numbers.at(buffer.spec.saved->first);
        const int64_t end = numbers.at(buffer.spec.saved->second);
        if (first < 0 || first > end || end > buffer.tensor->rows(buffer.spec.axis)) {
            throw artifact_error(name + ": rows " + std::to_string(first) + " .. " +
                                 std::to_string(end - 1) + " of " +
                                 std::to_string(buffer.tensor->rows(buffer.spec.axis)));
        }
        visit(buffer, first, end - first);
    }
}

void Buffers::clear() {
    for (auto& each : buffers_) {
        const std::string& role = each.second.spec.role;
        if (role != "key" && role != "value" && role != "queries") {
            each.second.tensor->fill_zero();
        }
    }
}

int64_t Buffers::bytes() const {
    size_t total = 0;
    for (const auto& each : buffers_) {
        total += each.second.tensor->view().bytes();
    }
    return static_cast<int64_t>(total);
}

std::vector<int64_t> saved_shape(const Buffer& buffer, int64_t rows) {
    std::vector<int64_t> shape = buffer.tensor->view().shape;
    shape[buffer.spec.axis] = rows;
    return shape;
}

}  // namespace lcc
