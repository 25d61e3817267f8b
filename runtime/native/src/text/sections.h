// The sections of `text.bin`, as arrays whose sizes are checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "text/tables.h"

namespace lcc {

// What a section holds; docs/format.md says it in full.
enum class Section : std::uint32_t {
    INFO = 1, OFFSETS, BYTES, FLAGS, WORDS, PAIRS, UNITS, JOINS, STEPS, STRINGS, CLASS_PAGES,
    CLASS_BLOCKS, TRANSITIONS, FORM_HEAD, FORM_PAGES, FORM_BLOCKS, FORM_RECORDS, FORM_LETTERS,
    FORM_PAIRS, TRIE_ROOT, TRIE_NODES, TRIE_EDGES, ADDED, SORT_PAGES, SORT_BLOCKS
};

// The directory of a file. All errors are Error (artifact) and name the file and the section.
class Sections {
public:
    // `file` must outlive it.
    Sections(std::string path, std::string_view file);

    bool has(Section kind, std::size_t index = 0) const;

    // A section as numbers; it must be there, and hold whole ones.
    template <typename T>
    Array<T> array(Section kind, std::size_t index = 0) const {
        const std::string_view bytes = section(kind, index);
        need(bytes.size() % sizeof(T) == 0, kind, index, "has another size");
        return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
    }

    template <typename T>
    Array<T> array(Section kind, std::size_t index, std::size_t size) const {
        const Array<T> found = array<T>(kind, index);
        need(found.size == size, kind, index, "has another size");
        return found;
    }

    template <typename T>
    Paged<T> paged(Section pages, Section blocks, std::size_t index = 0) const {
        Paged<T> found{array<std::uint16_t>(pages, index, 0x110000 / 256), array<T>(blocks, index)};
        need(found.blocks.size % 256 == 0, blocks, index, "has another size");
        for (std::size_t i = 0; i < found.pages.size; ++i) {
            need(found.pages[i] < found.blocks.size / 256, pages, index, "leaves the blocks");
        }
        return found;
    }

    // A hash table of rows, each of which begins with ids. One is empty: a search ends there.
    Array<std::uint32_t> hashed(Section kind, std::size_t row, std::size_t ids_in_row,
                                std::uint32_t ids) const;

    void need(bool right, const char* what) const;
    void need(bool right, Section kind, std::size_t index, const char* what) const;

private:
    void read();
    std::string_view section(Section kind, std::size_t index) const;
    [[noreturn]] void damaged(const std::string& what) const;

    std::string path_;
    std::string_view file_;
    std::map<std::pair<std::uint32_t, std::size_t>, std::string_view> sections_;
};

}  // namespace lcc
