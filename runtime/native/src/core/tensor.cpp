#include "core/tensor.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace lcc {

namespace {

std::atomic<uint64_t> made{0};

}  // namespace

int64_t View::count() const {
    int64_t total = 1;
    for (int64_t size : shape) {
        total *= size;
    }
    return total;
}

Tensor::Tensor(Dtype dtype, std::vector<int64_t> shape)
    : memory_(nullptr, std::free), view_{nullptr, dtype, std::move(shape)}, id_(++made) {
    memory_.reset(std::calloc(view_.bytes() + ALIGNMENT, 1));
    if (memory_ == nullptr) {
        throw std::bad_alloc();
    }
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    view_.data = reinterpret_cast<void*>((address + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

View Tensor::part(int64_t first, int64_t end) const {
    View part = view_;
    const size_t row = view_.shape[0] == 0
                           ? 0
                           : view_.bytes() / static_cast<size_t>(view_.shape[0]);
    part.data = static_cast<char*>(view_.data) + static_cast<size_t>(first) * row;
    part.shape[0] = end - first;
    return part;
}

namespace {

// Calls copy(address in the tensor, bytes) for each contiguous stretch of the rows.
template <typename Copy>
void each_stretch(const View& view, size_t axis, int64_t first, int64_t count, Copy copy) {
    size_t outer = 1, inner = width(view.dtype);
    for (size_t i = 0; i < axis; ++i) {
        outer *= static_cast<size_t>(view.shape[i]);
    }
    for (size_t i = axis + 1; i < view.shape.size(); ++i) {
        inner *= static_cast<size_t>(view.shape[i]);
    }
    const size_t stride = inner * static_cast<size_t>(view.shape[axis]);
    const size_t size = inner * static_cast<size_t>(count);
    if (size == 0) {
        return;  // the memory of nothing may be a null pointer, which memcpy must not get
    }
    char* place = static_cast<char*>(view.data) + inner * static_cast<size_t>(first);
    for (size_t i = 0; i < outer; ++i, place += stride) {
        copy(place, size);
    }
}

}  // namespace

void Tensor::copy_rows_out(size_t axis, int64_t first, int64_t count, void* packed) const {
    auto out = static_cast<char*>(packed);
    each_stretch(view_, axis, first, count, [&](char* place, size_t size) {
        std::memcpy(out, place, size);
        out += size;
    });
}

void Tensor::copy_rows_in(size_t axis, int64_t first, int64_t count, const void* packed) {
    auto from = static_cast<const char*>(packed);
    each_stretch(view_, axis, first, count, [&](char* place, size_t size) {
        std::memcpy(place, from, size);
        from += size;
    });
}

void Tensor::fill_zero() { std::memset(view_.data, 0, view_.bytes()); }

}  // namespace lcc
