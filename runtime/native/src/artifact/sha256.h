// SHA-256 (FIPS 180-4), of data that comes in pieces.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lcc {

class Sha256 {
public:
    void add(const void* data, size_t size);
    void add(std::string_view text) { add(text.data(), text.size()); }

    // 64 hex digits; nothing can be added behind it.
    std::string hex();

    static std::string of(std::string_view text);

private:
    void block(const unsigned char* data);

    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<unsigned char, 64> held_{};  // of a block that is not full yet
    size_t count_ = 0;                      // bytes in it
    uint64_t total_ = 0;                    // bytes so far
};

}  // namespace lcc
