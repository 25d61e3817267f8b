#include "artifact/sha256.h"

#include <algorithm>
#include <cstring>

namespace lcc {

namespace {

constexpr std::array<uint32_t, 64> ROUND{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t turned(uint32_t word, int bits) {
    return (word >> bits) | (word << (32 - bits));
}

}  // namespace

void Sha256::block(const unsigned char* data) {
    std::array<uint32_t, 64> w;
    for (size_t i = 0; i < 16; ++i) {
        w[i] = uint32_t{data[4 * i]} << 24 | uint32_t{data[4 * i + 1]} << 16 |
               uint32_t{data[4 * i + 2]} << 8 | uint32_t{data[4 * i + 3]};
    }
    for (size_t i = 16; i < 64; ++i) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        const uint32_t s0 = turned(a, 7) ^ turned(a, 18) ^ (a >> 3);
        const uint32_t s1 = turned(b, 17) ^ turned(b, 19) ^ (b >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (size_t i = 0; i < 64; ++i) {
        const uint32_t s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
        const uint32_t one = h + s1 + ((e & f) ^ (~e & g)) + ROUND[i] + w[i];
        const uint32_t s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
        const uint32_t two = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + one;
        d = c;
        c = b;
        b = a;
        a = one + two;
    }
    const std::array<uint32_t, 8> now{a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < 8; ++i) {
        state_[i] += now[i];
    }
}

void Sha256::add(const void* data, size_t size) {
    auto bytes = static_cast<const unsigned char*>(data);
    total_ += size;
    while (size > 0) {
        if (count_ == 0 && size >= 64) {
            block(bytes);
            bytes += 64;
            size -= 64;
            continue;
        }
        const size_t part = std::min(size, 64 - count_);
        std::memcpy(held_.data() + count_, bytes, part);
        count_ += part;
        bytes += part;
        size -= part;
        if (count_ == 64) {
            block(held_.data());
            count_ = 0;
        }
    }
}

std::string Sha256::hex() {
    const uint64_t bits = total_ * 8;
    const unsigned char one = 0x80, zero = 0;
    add(&one, 1);
    while (count_ != 56) {
        add(&zero, 1);
    }
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) {
        length[i] = static_cast<unsigned char>(bits >> (56 - 8 * i));
    }
    add(length, 8);
    static const char digits[] = "0123456789abcdef";
    std::string text;
    for (uint32_t word : state_) {
        for (int shift = 28; shift >= 0; shift -= 4) {
            text += digits[(word >> shift) & 15];
        }
    }
    return text;
}

std::string Sha256::of(std::string_view text) {
    Sha256 digest;
    digest.add(text);
    return digest.hex();
}

}  // namespace lcc
