// UTF-8, character by character.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lcc {

inline constexpr std::string_view REPLACEMENT = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the character that a byte begins; the text is valid.
inline std::size_t utf8_size(char first) {
    const auto byte = static_cast<unsigned char>(first);
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The character that begins at a place of a valid text; moves the place behind it.
inline std::uint32_t utf8_next(std::string_view text, std::size_t& place) {
    const auto byte = [&](std::size_t i) {
        return static_cast<std::uint32_t>(static_cast<unsigned char>(text[place + i]));
    };
    const std::uint32_t first = byte(0);
    std::uint32_t point = first;
    if (first < 0x80) {
        place += 1;
    } else if (first < 0xE0) {
        point = (first & 0x1F) << 6 | (byte(1) & 0x3F);
        place += 2;
    } else if (first < 0xF0) {
        point = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
        place += 3;
    } else {
        point = (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
                (byte(3) & 0x3F);
        place += 4;
    }
    return point;
}

// Where the character in front of a place of a valid text begins.
inline std::size_t utf8_before(std::string_view text, std::size_t place) {
    do {
        --place;
    } while (place > 0 && (static_cast<unsigned char>(text[place]) & 0xC0) == 0x80);
    return place;
}

void utf8_append(std::string& text, std::uint32_t point);

// What is at the beginning of some bytes.
struct Utf8Head {
    std::size_t size;  // of a character, or of what is to become one U+FFFD
    bool valid;
    bool incomplete;  // more bytes could make it a character
};

// `bytes` is not empty. Invalid bytes are cut as Unicode recommends (and Python does): the longest
// beginning of a character is one U+FFFD.
Utf8Head utf8_head(std::string_view bytes);

// The whole text, with U+FFFD for what is invalid.
std::string utf8_valid(std::string_view bytes);

bool is_utf8(std::string_view bytes);

}  // namespace lcc
