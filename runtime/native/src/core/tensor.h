// Memory of tensors: aligned as the kernels of all engines want it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "artifact/manifest.h"

namespace lcc {

constexpr size_t ALIGNMENT = 64;  // bytes: one cache line, one AVX-512 register

// A tensor that someone else owns: an address, and what lies there, C-contiguous.
struct View {
    void* data = nullptr;
    Dtype dtype = Dtype::float32;
    std::vector<int64_t> shape;

    int64_t count() const;  // numbers
    size_t bytes() const { return static_cast<size_t>(count()) * width(dtype); }
    template <typename Number>
    Number* as() const {
        return static_cast<Number*>(data);
    }
};

// A tensor with memory of its own: zeros at first, of which pages are taken as they are written.
class Tensor {
public:
    Tensor(Dtype dtype, std::vector<int64_t> shape);

    const View& view() const { return view_; }
    int64_t rows(size_t axis = 0) const { return view_.shape[axis]; }
    template <typename Number>
    Number* as() const {
        return view_.as<Number>();
    }

    // Another number for each tensor that was ever made: tells memory at the same address apart.
    uint64_t id() const { return id_; }

    // Rows first .. end-1 along the first axis, where they lie.
    View part(int64_t first, int64_t end) const;

    // Copies rows along an axis out of the tensor, or into it: `packed` holds them C-contiguous.
    void copy_rows_out(size_t axis, int64_t first, int64_t count, void* packed) const;
    void copy_rows_in(size_t axis, int64_t first, int64_t count, const void* packed);

    void fill_zero();

private:
    std::unique_ptr<void, void (*)(void*)> memory_;
    View view_;
    uint64_t id_;
};

}  // namespace lcc
