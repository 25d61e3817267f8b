// The checksum of zlib and zip: what an archive keeps of every column and header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lcc {

// Of `size` bytes that follow others, whose checksum is `before`; 0 = none do.
uint32_t crc32(const void* data, size_t size, uint32_t before = 0);

}  // namespace lcc
