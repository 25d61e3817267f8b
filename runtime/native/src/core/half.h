// Numbers of 16 bits (IEEE 754 binary16) and back.
#pragma once

#include <cstdint>
#include <cstring>

namespace lcc {

inline float to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 31, fraction = half & 0x3FF;
    uint32_t bits = 0;
    if (exponent == 31) {
        bits = sign | 0x7F800000 | fraction << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else if (fraction == 0) {
        bits = sign;
    } else {  // a small number: its first bit becomes the one that is not written
        exponent = 113;
        while ((fraction & 0x400) == 0) {
            fraction <<= 1;
            --exponent;
        }
        bits = sign | exponent << 23 | (fraction & 0x3FF) << 13;
    }
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Rounds to the nearest, of two alike to the even one.
inline uint16_t to_half(float value) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    const uint32_t size = bits & 0x7FFFFFFF;
    if (size >= 0x7F800000) {  // infinite, or no number
        return static_cast<uint16_t>(sign | 0x7C00 | (size > 0x7F800000 ? 0x200 : 0));
    }
    if (size >= 0x47800000) {
        return static_cast<uint16_t>(sign | 0x7C00);
    }
    const int exponent = static_cast<int>(size >> 23) - 112;
    uint32_t fraction = size & 0x7FFFFF, drop = 13;
    if (exponent <= 0) {
        if (exponent < -10) {
            return sign;
        }
        fraction |= 0x800000;
        drop = static_cast<uint32_t>(14 - exponent);
    }
    const uint32_t base = exponent > 0 ? static_cast<uint32_t>(exponent) << 10 : 0;
    uint32_t half = base + (fraction >> drop);
    const uint32_t rest = fraction & ((1u << drop) - 1), middle = 1u << (drop - 1);
    half += rest > middle || (rest == middle && (half & 1)) ? 1 : 0;
    return static_cast<uint16_t>(sign | half);
}

}  // namespace lcc
