#include "archive/convert.h"

#include <cstdint>
#include <cstring>

#include "core/error.h"
#include "core/half.h"

namespace lcc {

namespace {

constexpr float TWO_TO_112 = 5192296858534827628530496329220096.0f;  // between the two exponents

// As `to_float`, without branches: a compiler turns the loop over a column into vectors. A number
// moves to its place in 32 bits, where its exponent is 112 too small.
inline float widened(uint16_t half) {
    const uint32_t size = static_cast<uint32_t>(half & 0x7FFF) << 13;
    float value = 0;
    std::memcpy(&value, &size, sizeof value);
    value *= TWO_TO_112;
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    bits = size >= 0x0F800000 ? size | 0x7F800000 : bits;  // infinite, or no number
    bits |= static_cast<uint32_t>(half & 0x8000) << 16;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace

FileDtype file_dtype(Dtype dtype) {
    switch (dtype) {
        case Dtype::float16: return FileDtype::float16;
        case Dtype::int32: return FileDtype::int32;
        case Dtype::int64: return FileDtype::int64;
        default: return FileDtype::float32;
    }
}

std::vector<char> narrowed(const View& rows, FileDtype dtype) {
    if (file_dtype(rows.dtype) == dtype) {
        return {};
    }
    if (rows.dtype != Dtype::float32 || dtype != FileDtype::float16) {
        throw config_error(std::string("an archive keeps no ") + name_of(rows.dtype) + " in " +
                           name_of(dtype));
    }
    const auto count = static_cast<size_t>(rows.count());
    std::vector<char> cast(2 * count);
    for (size_t i = 0; i < count; ++i) {
        const uint16_t half = to_half(rows.as<float>()[i]);
        std::memcpy(&cast[2 * i], &half, sizeof half);
    }
    return cast;
}

void widen(const char* from, FileDtype dtype, size_t bytes, void* out) {
    if (dtype != FileDtype::float16) {
        std::memcpy(out, from, bytes);
        return;
    }
    auto numbers = static_cast<float*>(out);
    for (size_t i = 0; i < bytes / 2; ++i) {
        uint16_t half = 0;
        std::memcpy(&half, from + 2 * i, sizeof half);
        numbers[i] = widened(half);
    }
}

}  // namespace lcc
