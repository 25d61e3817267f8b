// `text.bin`: a tokenizer as tables, checked once and then read where it is mapped.
//
// docs/format.md says what each section holds. After `open_tables` every index that a reader can
// come to lies in its array, so that walking the tables needs no checks.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/mapped_file.h"

namespace lcc {

constexpr std::uint32_t NONE = 0xFFFFFFFF;

// An array in the file.
template <typename T>
struct Array {
    const T* data = nullptr;
    std::size_t size = 0;

    const T& operator[](std::size_t i) const {
        assert(i < size);  // `open_tables` has seen to it
        return data[i];
    }
};

// A number of each code point, in two steps: page, then place in a block.
template <typename T>
struct Paged {
    Array<std::uint16_t> pages;
    Array<T> blocks;

    T operator[](std::uint32_t point) const {
        return blocks[static_cast<std::size_t>(pages[point >> 8]) << 8 | (point & 0xFF)];
    }
};

// Decides where a match that begins at a place ends. State 0 is dead, state 1 the first one.
struct Automaton {
    static constexpr std::uint16_t MATCH = 0x8000;  // a match ends before this character

    Paged<std::uint8_t> classes;
    Array<std::uint16_t> next;  // [states, width]; the last column is the end of the text
    std::size_t width = 0;
};

// A normal form of Unicode, or lower case.
struct FormTable {
    static constexpr std::uint32_t MAP = 0, DECOMPOSE = 1, COMPOSE = 2;
    static constexpr std::uint32_t BOUNDARY = 1, ALONE = 2;  // bits of a record

    std::uint32_t mode = MAP;
    bool hangul = false;
    bool plain = false;     // ASCII stays as it is
    Paged<std::uint16_t> which;          // record of each code point
    Array<std::uint32_t> records;        // flags | order << 8 | letters << 16, first letter
    Array<std::uint32_t> letters;
    Array<std::uint32_t> pairs;  // first, second, both together; ascending
};

// Added tokens as a tree of bytes.
struct Tree {
    Array<std::uint32_t> root;   // node behind each first byte
    Array<std::uint32_t> nodes;  // first edge, edges, token + 1
    Array<std::uint32_t> edges;  // byte, node behind it

    bool empty() const { return nodes.size == 0; }
    std::uint32_t below(std::uint32_t node, unsigned char byte) const;  // NONE = nothing
};

enum class Op : std::uint32_t { FORM = 1, REPLACE, REPLACE_BYTE, PREFIX, STRIP, SPLIT };

struct Step {
    Op op;
    std::uint32_t a, b, c;
    std::string_view content;  // of REPLACE, REPLACE_BYTE, PREFIX
};

// Bits of a token's flags.
enum TokenFlag : std::uint8_t { PRESENT = 1, WORD = 2, BYTE = 4, ADDED = 8, SPECIAL = 16 };
// Bits of an added token's flags.
enum AddedFlag : std::uint32_t { LSTRIP = 1, RSTRIP = 2, SINGLE_WORD = 4 };
// Bits of a code point's sort.
enum Sort : std::uint8_t { SPACE = 1, LETTER = 2 };

struct Tables {
    explicit Tables(const std::string& path) : file(path) {}

    MappedFile file;

    std::uint32_t ids = 0;
    bool in_bytes = false, byte_fallback = false, fuse_unknown = false, cuts = false;
    std::uint32_t unknown = NONE;
    std::uint32_t longest = 0;  // bytes of a word

    Array<std::uint32_t> offsets;
    Array<char> bytes;
    Array<std::uint8_t> flags;
    Array<std::uint32_t> words;  // ids, by hash
    Array<std::uint32_t> pairs;  // left, right, rank, what they become; by hash
    Array<std::uint32_t> joins;  // left, right; by hash
    Array<std::uint32_t> units;  // [256]: token of each byte

    std::vector<Step> normalizer, pre_tokenizer;
    std::vector<Automaton> automata;
    std::vector<FormTable> forms;
    std::array<Tree, 3> trees;  // found in the text, behind the normalizer, in a plain text
    Array<std::uint32_t> added;  // id, flags
    Paged<std::uint8_t> sorts;

    bool shown_in_bytes = false, drop_first = false;
    std::uint32_t strip = 0;
    std::string_view shown_from, shown_as;

    std::string_view token(std::uint32_t id) const {
        return {bytes.data + offsets[id], offsets[id + 1] - offsets[id]};
    }
    // The token whose bytes a word is; NONE = there is none.
    std::uint32_t word(std::string_view content) const;
    // Row of `pairs`; nullptr = the two are not merged.
    const std::uint32_t* pair(std::uint32_t left, std::uint32_t right) const;
    bool joined(std::uint32_t left, std::uint32_t right) const;
};

// Throws Error (artifact): it cannot be read, or is damaged; says where.
std::unique_ptr<const Tables> open_tables(const std::string& path);

}  // namespace lcc
