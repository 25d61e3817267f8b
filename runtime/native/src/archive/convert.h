// Numbers of buffers as those of the file, and back: keys and values may have fewer bits there.
#pragma once

#include <cstddef>
#include <vector>

#include "archive/layout.h"
#include "core/tensor.h"

namespace lcc {

FileDtype file_dtype(Dtype dtype);

// Rows in the dtype of the file, rounded to the nearest, of two alike to the even one; nothing
// where they have it already.
std::vector<char> narrowed(const View& rows, FileDtype dtype);

// Copies `bytes` bytes of the file: numbers of 16 bits become numbers of 32 bits.
void widen(const char* from, FileDtype dtype, size_t bytes, void* out);

}  // namespace lcc
