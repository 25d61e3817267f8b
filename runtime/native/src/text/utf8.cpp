#include "text/utf8.h"

namespace lcc {

void utf8_append(std::string& text, std::uint32_t point) {
    const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
    if (point < 0x80) {
        put(point);
    } else if (point < 0x800) {
        put(0xC0 | point >> 6);
        put(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        put(0xE0 | point >> 12);
        put(0x80 | (point >> 6 & 0x3F));
        put(0x80 | (point & 0x3F));
    } else {
        put(0xF0 | point >> 18);
        put(0x80 | (point >> 12 & 0x3F));
        put(0x80 | (point >> 6 & 0x3F));
        put(0x80 | (point & 0x3F));
    }
}

Utf8Head utf8_head(std::string_view bytes) {
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    const unsigned first = at(0);
    if (first < 0x80) {
        return {1, true, false};
    }
    if (first < 0xC2 || first > 0xF4) {
        return {1, false, false};
    }
    const std::size_t wanted = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    for (std::size_t i = 1; i < wanted; ++i) {
        if (i == bytes.size()) {
            return {i, false, true};
        }
        unsigned low = 0x80;
        unsigned high = 0xBF;
        if (i == 1) {  // neither longer than need be, nor a surrogate, nor above U+10FFFF
            low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : low;
            high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : high;
        }
        if (at(i) < low || at(i) > high) {
            return {i, false, false};
        }
    }
    return {wanted, true, false};
}

std::string utf8_valid(std::string_view bytes) {
    std::string text;
    while (!bytes.empty()) {
        const Utf8Head head = utf8_head(bytes);
        text += head.valid ? bytes.substr(0, head.size) : REPLACEMENT;
        bytes.remove_prefix(head.size);
    }
    return text;
}

bool is_utf8(std::string_view bytes) {
    while (!bytes.empty()) {
        const Utf8Head head = utf8_head(bytes);
        if (!head.valid) {
            return false;
        }
        bytes.remove_prefix(head.size);
    }
    return true;
}

}  // namespace lcc
