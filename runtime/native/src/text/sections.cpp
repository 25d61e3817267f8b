#include "text/sections.h"

#include <cstring>

#include "core/error.h"

namespace lcc {
namespace {

constexpr std::string_view MAGIC = "lcc-text";
constexpr std::uint32_t VERSION = 1;
constexpr std::size_t HEADER = 32, ENTRY = 24, ALIGN = 64, MOST_SECTIONS = 4096;
constexpr const char* NAMES[] = {
    "?", "info", "offsets", "bytes", "flags", "words", "pairs", "units", "joins", "steps",
    "strings", "class pages", "class blocks", "transitions", "form head", "form pages",
    "form blocks", "form records", "form letters", "form pairs", "tree root", "tree nodes",
    "tree edges", "added", "sort pages", "sort blocks"};
constexpr std::uint32_t KINDS = sizeof(NAMES) / sizeof(NAMES[0]);

template <typename T>
T number(std::string_view file, std::size_t place) {
    T value;
    std::memcpy(&value, file.data() + place, sizeof(T));
    return value;
}

bool little_endian() {
    const std::uint16_t one = 1;
    unsigned char low = 0;
    std::memcpy(&low, &one, 1);
    return low == 1;
}

}  // namespace

Sections::Sections(std::string path, std::string_view file)
    : path_(std::move(path)), file_(file) {
    read();
}

void Sections::read() {
    if (!little_endian()) {
        throw unsupported(path_ + ": its numbers are little-endian, and this machine's are not");
    }
    need(file_.size() >= HEADER && file_.substr(0, MAGIC.size()) == MAGIC,
         "it does not begin as tokenizer tables");
    const auto version = number<std::uint32_t>(file_, 8);
    if (version != VERSION) {
        throw artifact_error(path_ + ": version " + std::to_string(version) +
                             ", this runtime reads version " + std::to_string(VERSION) +
                             "; compile the model anew, or install a newer runtime");
    }
    const std::size_t count = number<std::uint32_t>(file_, 12);
    need(number<std::uint64_t>(file_, 16) == file_.size(), "it has another size than it says");
    need(count <= MOST_SECTIONS && HEADER + ENTRY * count <= file_.size(), "list of sections");
    for (std::size_t entry = HEADER; entry < HEADER + ENTRY * count; entry += ENTRY) {
        const auto kind = number<std::uint32_t>(file_, entry);
        const std::size_t index = number<std::uint32_t>(file_, entry + 4);
        const auto place = number<std::uint64_t>(file_, entry + 8);
        const auto size = number<std::uint64_t>(file_, entry + 16);
        need(kind > 0 && kind < KINDS, "a section of unknown kind");
        const auto named = static_cast<Section>(kind);
        need(place % ALIGN == 0 && place <= file_.size() && size <= file_.size() - place, named,
             index, "leaves the file");
        const auto added = sections_.emplace(std::pair(kind, index), file_.substr(place, size));
        need(added.second, named, index, "is there twice");
    }
}

bool Sections::has(Section kind, std::size_t index) const {
    return sections_.count({static_cast<std::uint32_t>(kind), index}) > 0;
}

std::string_view Sections::section(Section kind, std::size_t index) const {
    const auto found = sections_.find({static_cast<std::uint32_t>(kind), index});
    need(found != sections_.end(), kind, index, "is missing");
    return found->second;
}

Array<std::uint32_t> Sections::hashed(Section kind, std::size_t row, std::size_t ids_in_row,
                                      std::uint32_t ids) const {
    const auto table = array<std::uint32_t>(kind);
    need(table.size % row == 0 && table.size > 0, kind, 0, "has another size");
    bool empty = false;
    for (std::size_t i = 0; i < table.size; i += row) {
        empty = empty || table[i] == NONE;
        for (std::size_t k = 0; k < ids_in_row && table[i] != NONE; ++k) {
            need(table[i + k] < ids, kind, 0, "an id is out of range");
        }
    }
    need(empty, kind, 0, "is full");
    return table;
}

void Sections::need(bool right, const char* what) const {
    if (!right) {
        damaged(what);
    }
}

void Sections::need(bool right, Section kind, std::size_t index, const char* what) const {
    if (!right) {
        damaged("section " + std::string(NAMES[static_cast<std::uint32_t>(kind)]) + " " +
                std::to_string(index) + ": " + what);
    }
}

void Sections::damaged(const std::string& what) const {
    throw artifact_error(path_ + ": damaged (" + what + "); copy the artifact anew");
}

}  // namespace lcc
