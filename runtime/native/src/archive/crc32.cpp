#include "archive/crc32.h"

#include <array>

namespace lcc {

namespace {

constexpr uint32_t POLYNOMIAL = 0xEDB88320;  // of IEEE 802.3, lowest bit first
constexpr size_t STEP = 8;                   // bytes that one step takes

using Tables = std::array<std::array<uint32_t, 256>, STEP>;

// Table k has what a byte adds to the checksum when k more bytes follow it.
constexpr Tables make_tables() {
    Tables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; ++bit) {
            value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
        }
        tables[0][byte] = value;
    }
    for (size_t k = 1; k < STEP; ++k) {
        for (size_t byte = 0; byte < 256; ++byte) {
            const uint32_t value = tables[k - 1][byte];
            tables[k][byte] = value >> 8 ^ tables[0][value & 0xFF];
        }
    }
    return tables;
}

constexpr Tables TABLES = make_tables();

uint32_t four(const unsigned char* bytes) {
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

}  // namespace

uint32_t crc32(const void* data, size_t size, uint32_t before) {
    auto bytes = static_cast<const unsigned char*>(data);
    uint32_t crc = ~before;
    for (; size >= STEP; size -= STEP, bytes += STEP) {
        const uint32_t low = crc ^ four(bytes), high = four(bytes + 4);
        crc = TABLES[7][low & 0xFF] ^ TABLES[6][low >> 8 & 0xFF] ^ TABLES[5][low >> 16 & 0xFF] ^
              TABLES[4][low >> 24] ^ TABLES[3][high & 0xFF] ^ TABLES[2][high >> 8 & 0xFF] ^
              TABLES[1][high >> 16 & 0xFF] ^ TABLES[0][high >> 24];
    }
    for (; size > 0; --size, ++bytes) {
        crc = crc >> 8 ^ TABLES[0][(crc ^ *bytes) & 0xFF];
    }
    return ~crc;
}

}  // namespace lcc
