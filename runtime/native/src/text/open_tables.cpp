// Reads and checks `text.bin`: what is damaged is refused here, and nothing is checked later.
#include <cstring>
#include <map>
#include <utility>

#include "core/error.h"
#include "text/tables.h"
#include "text/utf8.h"

namespace lcc {
namespace {

constexpr std::string_view MAGIC = "lcc-text";
constexpr std::uint32_t VERSION = 1;
constexpr std::uint32_t MOST_IDS = 1 << 22;
constexpr std::uint32_t PAGES = 0x110000 / 256;

enum Kind : std::uint32_t {
    INFO = 1, OFFSETS, BYTES, FLAGS, WORDS, PAIRS, UNITS, JOINS, STEPS, STRINGS, CLASS_PAGES,
    CLASS_BLOCKS, TRANSITIONS, FORM_HEAD, FORM_PAGES, FORM_BLOCKS, FORM_RECORDS, FORM_LETTERS,
    FORM_PAIRS, TRIE_ROOT, TRIE_NODES, TRIE_EDGES, ADDED_TOKENS, SORT_PAGES, SORT_BLOCKS
};
constexpr const char* NAMES[] = {
    "?", "info", "offsets", "bytes", "flags", "words", "pairs", "units", "joins", "steps",
    "strings", "class pages", "class blocks", "transitions", "form head", "form pages",
    "form blocks", "form records", "form letters", "form pairs", "tree root", "tree nodes",
    "tree edges", "added tokens", "sort pages", "sort blocks"};

// Numbers of the section info, by place.
enum Info : std::size_t {
    IDS, MODEL, UNKNOWN, NORMALIZER_STEPS, STEP_COUNT, AUTOMATA, FORMS, ADDED_COUNT, LONGEST,
    DECODING, STRIP_COUNT, SHOWN_FROM, SHOWN_FROM_SIZE, SHOWN_AS, SHOWN_AS_SIZE, INFO_SIZE
};

class Opener {
public:
    Opener(Tables& tables, std::string path) : tables_(tables), path_(std::move(path)) {}

    void open() {
        const std::uint16_t one = 1;
        unsigned char low = 0;
        std::memcpy(&low, &one, 1);
        need(low == 1, "its numbers are little-endian, and this machine's are not");
        read_header();
        info_ = array<std::uint32_t>(INFO, 0);
        need(info_.size == INFO_SIZE, "section info has another size");
        strings_ = array<char>(STRINGS, 0);
        check_words();
        check_merges();
        check_added();
        check_automata();
        check_forms();
        check_steps();
        check_decoding();
    }

private:
    void need(bool right, const std::string& what) const {
        if (!right) {
            throw artifact_error(path_ + ": damaged (" + what + "); copy the artifact anew");
        }
    }

    void need(bool right, Kind kind, std::size_t index, const char* what) const {
        if (!right) {
            need(false, "section " + std::string(NAMES[kind]) + " " + std::to_string(index) +
                            ": " + what);
        }
    }

    void read_header() {
        const std::string_view file = tables_.file.bytes();
        need(file.size() >= 32 && file.substr(0, MAGIC.size()) == MAGIC, "it does not begin as one");
        const auto version = number<std::uint32_t>(8);
        if (version != VERSION) {
            throw artifact_error(path_ + ": version " + std::to_string(version) +
                                 ", this runtime reads version " + std::to_string(VERSION) +
                                 "; compile the model anew, or install a newer runtime");
        }
        const auto count = number<std::uint32_t>(12);
        need(number<std::uint64_t>(16) == file.size(), "it has another size than it says");
        need(count <= 4096 && 32 + 24 * std::size_t{count} <= file.size(), "list of sections");
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t entry = 32 + 24 * i;
            const auto kind = number<std::uint32_t>(entry);
            const auto index = number<std::uint32_t>(entry + 4);
            const auto place = number<std::uint64_t>(entry + 8);
            const auto size = number<std::uint64_t>(entry + 16);
            need(kind >= INFO && kind <= SORT_BLOCKS, "unknown section " + std::to_string(kind));
            need(place % 64 == 0 && place <= file.size() && size <= file.size() - place,
                 static_cast<Kind>(kind), index, "leaves the file");
            const auto key = std::make_pair(kind, index);
            need(sections_.emplace(key, file.substr(place, size)).second,
                 static_cast<Kind>(kind), index, "is there twice");
        }
    }

    template <typename T>
    T number(std::size_t place) const {
        T value;
        std::memcpy(&value, tables_.file.bytes().data() + place, sizeof(T));
        return value;
    }

    bool has(Kind kind, std::size_t index) const {
        return sections_.count({kind, static_cast<std::uint32_t>(index)}) > 0;
    }

    template <typename T>
    Array<T> array(Kind kind, std::size_t index) const {
        const auto found = sections_.find({kind, static_cast<std::uint32_t>(index)});
        need(found != sections_.end(), kind, index, "is missing");
        const std::string_view bytes = found->second;
        need(bytes.size() % sizeof(T) == 0, kind, index, "has another size");
        return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
    }

    template <typename T>
    Array<T> array(Kind kind, std::size_t index, std::size_t size) const {
        const Array<T> found = array<T>(kind, index);
        need(found.size == size, kind, index, "has another size");
        return found;
    }

    // A hash table of rows: one of them is empty, or a search would never end.
    Array<std::uint32_t> hashed(Kind kind, std::size_t row, std::size_t ids_in_row) const {
        const auto table = array<std::uint32_t>(kind, 0);
        need(table.size % row == 0 && table.size > 0, kind, 0, "has another size");
        bool empty = false;
        for (std::size_t i = 0; i < table.size; i += row) {
            if (table[i] == NONE) {
                empty = true;
                continue;
            }
            for (std::size_t k = 0; k < ids_in_row; ++k) {
                need(table[i + k] < tables_.ids, kind, 0, "an id is out of range");
            }
        }
        need(empty, kind, 0, "is full");
        return table;
    }

    void check_words() {
        Tables& t = tables_;
        t.ids = info_[IDS];
        need(t.ids > 0 && t.ids <= MOST_IDS, "number of ids");
        const std::uint32_t bits = info_[MODEL];
        need(bits < 32, "kind of model");
        t.in_bytes = bits & 1;
        t.byte_fallback = bits & 2;
        t.fuse_unknown = bits & 4;
        t.cuts = bits & 8;
        t.unknown = info_[UNKNOWN];
        need(t.unknown == NONE || t.unknown < t.ids, "unknown token");
        t.longest = info_[LONGEST];
        t.offsets = array<std::uint32_t>(OFFSETS, 0, t.ids + 1);
        t.bytes = array<char>(BYTES, 0);
        t.flags = array<std::uint8_t>(FLAGS, 0, t.ids);
        for (std::size_t i = 0; i < t.ids; ++i) {
            need(t.offsets[i] <= t.offsets[i + 1], OFFSETS, 0, "does not ascend");
            const bool spelled = t.offsets[i + 1] - t.offsets[i] == 6;
            need(!(t.flags[i] & BYTE) || spelled, FLAGS, 0, "a byte that is not spelled as one");
        }
        need(t.offsets[t.ids] <= t.bytes.size, OFFSETS, 0, "leaves the bytes");
        t.words = hashed(WORDS, 1, 1);
    }

    void check_merges() {
        Tables& t = tables_;
        t.pairs = hashed(PAIRS, 4, 2);
        for (std::size_t i = 0; i < t.pairs.size; i += 4) {
            need(t.pairs[i] == NONE || (t.pairs[i + 2] != NONE && t.pairs[i + 3] < t.ids), PAIRS, 0,
                 "a merge is out of range");
        }
        t.units = array<std::uint32_t>(UNITS, 0, 256);
        for (std::size_t i = 0; i < 256; ++i) {
            need(t.units[i] == NONE || t.units[i] < t.ids, UNITS, 0, "an id is out of range");
            need(t.in_bytes || (t.units[i] == NONE) == (t.units[0] == NONE), UNITS, 0,
                 "some bytes have no token");
        }
        t.byte_fallback = t.byte_fallback && !t.in_bytes && t.units[0] != NONE;
        if (t.cuts) {
            t.joins = hashed(JOINS, 2, 2);
        }
    }

    template <typename T>
    Paged<T> paged(Kind pages, Kind blocks, std::size_t index) const {
        Paged<T> found{array<std::uint16_t>(pages, index, PAGES), array<T>(blocks, index)};
        need(found.blocks.size % 256 == 0, blocks, index, "has another size");
        for (std::size_t i = 0; i < PAGES; ++i) {
            need(found.pages[i] < found.blocks.size / 256, pages, index, "leaves the blocks");
        }
        return found;
    }

    void check_added() {
        Tables& t = tables_;
        need(info_[ADDED_COUNT] <= MOST_IDS, "number of added tokens");
        t.added = array<std::uint32_t>(ADDED_TOKENS, 0, 2 * std::size_t{info_[ADDED_COUNT]});
        bool sorts = false;
        for (std::size_t i = 0; i < t.added.size; i += 2) {
            need(t.added[i] < t.ids, ADDED_TOKENS, 0, "an id is out of range");
            sorts = sorts || t.added[i + 1] & (LSTRIP | RSTRIP | SINGLE_WORD);
        }
        for (std::size_t i = 0; i < t.trees.size(); ++i) {
            if (has(TRIE_ROOT, i)) {
                t.trees[i] = tree(i);
            }
        }
        if (sorts || has(SORT_PAGES, 0)) {
            t.sorts = paged<std::uint8_t>(SORT_PAGES, SORT_BLOCKS, 0);
        }
    }

    Tree tree(std::size_t index) const {
        Tree found{array<std::uint32_t>(TRIE_ROOT, index, 256),
                   array<std::uint32_t>(TRIE_NODES, index),
                   array<std::uint32_t>(TRIE_EDGES, index)};
        need(found.nodes.size % 3 == 0 && found.edges.size % 2 == 0, TRIE_NODES, index,
             "has another size");
        const std::size_t nodes = found.nodes.size / 3;
        const std::size_t edges = found.edges.size / 2;
        for (std::size_t i = 0; i < 256; ++i) {
            need(found.root[i] == NONE || found.root[i] < nodes, TRIE_ROOT, index, "out of range");
        }
        for (std::size_t i = 0; i < nodes; ++i) {
            const std::uint32_t first = found.nodes[3 * i];
            need(first <= edges && found.nodes[3 * i + 1] <= edges - first, TRIE_NODES, index,
                 "leaves the edges");
            need(found.nodes[3 * i + 2] <= info_[ADDED_COUNT], TRIE_NODES, index, "no such token");
        }
        for (std::size_t i = 0; i < edges; ++i) {
            need(found.edges[2 * i + 1] < nodes, TRIE_EDGES, index, "out of range");
        }
        return found;
    }

    void check_automata() {
        need(info_[AUTOMATA] <= 1024, "number of automata");
        for (std::size_t i = 0; i < info_[AUTOMATA]; ++i) {
            Automaton found;
            found.classes = paged<std::uint8_t>(CLASS_PAGES, CLASS_BLOCKS, i);
            std::size_t most = 0;
            for (std::size_t k = 0; k < found.classes.blocks.size; ++k) {
                most = std::max<std::size_t>(most, found.classes.blocks[k]);
            }
            found.width = most + 2;
            found.next = array<std::uint16_t>(TRANSITIONS, i);
            const std::size_t states = found.next.size / found.width;
            need(states >= 2 && states * found.width == found.next.size, TRANSITIONS, i,
                 "has another size");
            for (std::size_t k = 0; k < found.next.size; ++k) {
                need(std::size_t{found.next[k] & 0x7FFFU} < states, TRANSITIONS, i, "no such state");
            }
            for (std::size_t k = 0; k < found.width; ++k) {  // a match takes a character
                need(!(found.next[found.width + k] & Automaton::MATCH), TRANSITIONS, i,
                     "matches nothing");
            }
            tables_.automata.push_back(found);
        }
    }

    static bool scalar(std::uint32_t point) {
        return point < 0xD800 || (point >= 0xE000 && point < 0x110000);
    }

    void check_forms() {
        need(info_[FORMS] <= 64, "number of forms");
        for (std::size_t i = 0; i < info_[FORMS]; ++i) {
            const auto head = array<std::uint32_t>(FORM_HEAD, i, 4);
            FormTable found;
            found.mode = head[0];
            need(found.mode <= FormTable::COMPOSE, FORM_HEAD, i, "unknown kind");
            found.hangul = head[1] != 0;
            found.plain = head[2] != 0;
            found.which = paged<std::uint16_t>(FORM_PAGES, FORM_BLOCKS, i);
            found.records = array<std::uint32_t>(FORM_RECORDS, i);
            found.letters = array<std::uint32_t>(FORM_LETTERS, i);
            found.pairs = array<std::uint32_t>(FORM_PAIRS, i);
            const std::size_t records = found.records.size / 2;
            need(found.records.size % 2 == 0, FORM_RECORDS, i, "has another size");
            need(found.pairs.size % 3 == 0, FORM_PAIRS, i, "has another size");
            for (std::size_t k = 0; k < found.which.blocks.size; ++k) {
                need(found.which.blocks[k] < records, FORM_BLOCKS, i, "no such record");
            }
            for (std::size_t k = 0; k < records; ++k) {
                const std::size_t size = found.records[2 * k] >> 16;
                const std::size_t first = found.records[2 * k + 1];
                need(first <= found.letters.size && size <= found.letters.size - first,
                     FORM_RECORDS, i, "leaves the letters");
            }
            for (std::size_t k = 0; k < found.letters.size; ++k) {
                need(scalar(found.letters[k]), FORM_LETTERS, i, "no code point");
            }
            for (std::size_t k = 2; k < found.pairs.size; k += 3) {
                need(scalar(found.pairs[k]), FORM_PAIRS, i, "no code point");
            }
            tables_.forms.push_back(found);
        }
    }

    std::string_view string(std::uint32_t place, std::uint32_t size) const {
        need(place <= strings_.size && size <= strings_.size - place, STRINGS, 0, "out of range");
        const std::string_view found(strings_.data + place, size);
        need(is_utf8(found), STRINGS, 0, "not UTF-8");
        return found;
    }

    void check_steps() {
        const std::size_t count = info_[STEP_COUNT];
        const std::size_t early = info_[NORMALIZER_STEPS];
        need(count <= 256 && early <= count, "number of steps");
        const auto rows = array<std::uint32_t>(STEPS, 0, 5 * count);
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t* row = rows.data + 5 * i;
            Step step{static_cast<Op>(row[0]), row[1], row[2], row[3], {}};
            bool right = false;
            switch (step.op) {
                case Op::FORM:
                    right = step.a < tables_.forms.size();
                    break;
                case Op::REPLACE:
                    right = step.a < tables_.automata.size();
                    step.content = string(row[3], row[4]);
                    break;
                case Op::REPLACE_BYTE:
                    right = step.a < 128;
                    step.content = string(row[3], row[4]);
                    break;
                case Op::PREFIX:
                    right = step.a <= 2;
                    step.content = string(row[3], row[4]);
                    break;
                case Op::STRIP:
                    right = tables_.sorts.pages.size > 0;
                    break;
                case Op::SPLIT:
                    right = step.a < tables_.automata.size() && step.b <= 4;
                    break;
            }
            need(right, STEPS, i, "unknown, or out of range");
            (i < early ? tables_.normalizer : tables_.pre_tokenizer).push_back(step);
        }
    }

    void check_decoding() {
        need(info_[DECODING] < 4, "decoding");
        tables_.shown_in_bytes = info_[DECODING] & 1;
        tables_.drop_first = info_[DECODING] & 2;
        tables_.strip = info_[STRIP_COUNT];
        tables_.shown_from = string(info_[SHOWN_FROM], info_[SHOWN_FROM_SIZE]);
        tables_.shown_as = string(info_[SHOWN_AS], info_[SHOWN_AS_SIZE]);
    }

    Tables& tables_;
    std::string path_;
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::string_view> sections_;
    Array<std::uint32_t> info_;
    Array<char> strings_;
};

}  // namespace

std::unique_ptr<const Tables> open_tables(const std::string& path) {
    auto tables = std::make_unique<Tables>(path);
    Opener(*tables, path).open();
    return tables;
}

}  // namespace lcc
