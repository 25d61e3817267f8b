// Reads and checks `text.bin`: what is damaged is refused here, and nothing is checked later.
#include <algorithm>

#include "text/sections.h"
#include "text/tables.h"
#include "text/utf8.h"

namespace lcc {
namespace {

constexpr std::uint32_t MOST_IDS = 1 << 22;

// Numbers of the section info, by place.
enum Info : std::size_t {
    IDS, MODEL, UNKNOWN, NORMALIZER_STEPS, STEP_COUNT, AUTOMATA, FORMS, ADDED_COUNT, LONGEST,
    DECODING, STRIP_COUNT, SHOWN_FROM, SHOWN_FROM_SIZE, SHOWN_AS, SHOWN_AS_SIZE, INFO_SIZE
};

class Opener {
public:
    Opener(Tables& tables, const std::string& path)
        : tables_(tables), sections_(path, tables.file.bytes()) {}

    void open() {
        info_ = sections_.array<std::uint32_t>(Section::INFO, 0, INFO_SIZE);
        strings_ = sections_.array<char>(Section::STRINGS);
        check_words();
        check_merges();
        check_added();
        check_automata();
        check_forms();
        check_steps();
        check_decoding();
    }

private:
    template <typename... What>
    void need(bool right, What... what) const {
        sections_.need(right, what...);
    }

    template <typename T, typename... Where>
    Array<T> array(Where... where) const {
        return sections_.array<T>(where...);
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
        t.offsets = array<std::uint32_t>(Section::OFFSETS, 0, t.ids + 1);
        t.bytes = array<char>(Section::BYTES, 0);
        t.flags = array<std::uint8_t>(Section::FLAGS, 0, t.ids);
        for (std::size_t i = 0; i < t.ids; ++i) {
            need(t.offsets[i] <= t.offsets[i + 1], Section::OFFSETS, 0, "does not ascend");
            const bool spelled = t.offsets[i + 1] - t.offsets[i] == 6;
            need(!(t.flags[i] & BYTE) || spelled, Section::FLAGS, 0,
                 "a byte that is not spelled as one");
        }
        need(t.offsets[t.ids] <= t.bytes.size, Section::OFFSETS, 0, "leaves the bytes");
        t.words = sections_.hashed(Section::WORDS, 1, 1, t.ids);
    }

    void check_merges() {
        Tables& t = tables_;
        t.pairs = sections_.hashed(Section::PAIRS, 4, 2, t.ids);
        for (std::size_t i = 0; i < t.pairs.size; i += 4) {
            const bool right = t.pairs[i + 2] != NONE && t.pairs[i + 3] < t.ids;
            need(t.pairs[i] == NONE || right, Section::PAIRS, 0, "a merge is out of range");
        }
        t.units = array<std::uint32_t>(Section::UNITS, 0, 256);
        for (std::size_t i = 0; i < 256; ++i) {
            need(t.units[i] == NONE || t.units[i] < t.ids, Section::UNITS, 0, "an id is out of range");
            need(t.in_bytes || (t.units[i] == NONE) == (t.units[0] == NONE), Section::UNITS, 0,
                 "some bytes have no token");
        }
        t.byte_fallback = t.byte_fallback && !t.in_bytes && t.units[0] != NONE;
        if (t.cuts) {
            t.joins = sections_.hashed(Section::JOINS, 2, 2, t.ids);
        }
    }

    void check_added() {
        Tables& t = tables_;
        need(info_[ADDED_COUNT] <= MOST_IDS, "number of added tokens");
        t.added = array<std::uint32_t>(Section::ADDED, 0, 2 * std::size_t{info_[ADDED_COUNT]});
        bool sorts = false;
        for (std::size_t i = 0; i < t.added.size; i += 2) {
            need(t.added[i] < t.ids, Section::ADDED, 0, "an id is out of range");
            sorts = sorts || t.added[i + 1] & (LSTRIP | RSTRIP | SINGLE_WORD);
        }
        for (std::size_t i = 0; i < t.trees.size(); ++i) {
            if (sections_.has(Section::TRIE_ROOT, i)) {
                t.trees[i] = tree(i);
            }
        }
        if (sorts || sections_.has(Section::SORT_PAGES, 0)) {
            t.sorts = sections_.paged<std::uint8_t>(Section::SORT_PAGES, Section::SORT_BLOCKS, 0);
        }
    }

    Tree tree(std::size_t index) const {
        Tree found{array<std::uint32_t>(Section::TRIE_ROOT, index, 256),
                   array<std::uint32_t>(Section::TRIE_NODES, index),
                   array<std::uint32_t>(Section::TRIE_EDGES, index)};
        need(found.nodes.size % 3 == 0 && found.edges.size % 2 == 0, Section::TRIE_NODES, index,
             "has another size");
        const std::size_t nodes = found.nodes.size / 3;
        const std::size_t edges = found.edges.size / 2;
        for (std::size_t i = 0; i < 256; ++i) {
            need(found.root[i] == NONE || found.root[i] < nodes, Section::TRIE_ROOT, index,
                 "out of range");
        }
        for (std::size_t i = 0; i < nodes; ++i) {
            const std::uint32_t first = found.nodes[3 * i];
            need(first <= edges && found.nodes[3 * i + 1] <= edges - first, Section::TRIE_NODES, index,
                 "leaves the edges");
            need(found.nodes[3 * i + 2] <= info_[ADDED_COUNT], Section::TRIE_NODES, index,
                 "no such token");
        }
        for (std::size_t i = 0; i < edges; ++i) {
            need(found.edges[2 * i + 1] < nodes, Section::TRIE_EDGES, index, "out of range");
        }
        return found;
    }

    void check_automata() {
        need(info_[AUTOMATA] <= 1024, "number of automata");
        for (std::size_t i = 0; i < info_[AUTOMATA]; ++i) {
            Automaton found;
            found.classes = sections_.paged<std::uint8_t>(Section::CLASS_PAGES, Section::CLASS_BLOCKS, i);
            std::size_t most = 0;
            for (std::size_t k = 0; k < found.classes.blocks.size; ++k) {
                most = std::max<std::size_t>(most, found.classes.blocks[k]);
            }
            found.width = most + 2;
            found.next = array<std::uint16_t>(Section::TRANSITIONS, i);
            const std::size_t states = found.next.size / found.width;
            need(states >= 2 && states * found.width == found.next.size, Section::TRANSITIONS, i,
                 "has another size");
            for (std::size_t k = 0; k < found.next.size; ++k) {
                need(std::size_t{found.next[k] & 0x7FFFU} < states, Section::TRANSITIONS, i,
                     "no such state");
            }
            for (std::size_t k = 0; k < found.width; ++k) {  // a match takes a character
                need(!(found.next[found.width + k] & Automaton::MATCH), Section::TRANSITIONS, i,
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
            const auto head = array<std::uint32_t>(Section::FORM_HEAD, i, 4);
            FormTable found;
            found.mode = head[0];
            need(found.mode <= FormTable::COMPOSE, Section::FORM_HEAD, i, "unknown kind");
            found.hangul = head[1] != 0;
            found.plain = head[2] != 0;
            found.which = sections_.paged<std::uint16_t>(Section::FORM_PAGES, Section::FORM_BLOCKS, i);
            found.records = array<std::uint32_t>(Section::FORM_RECORDS, i);
            found.letters = array<std::uint32_t>(Section::FORM_LETTERS, i);
            found.pairs = array<std::uint32_t>(Section::FORM_PAIRS, i);
            const std::size_t records = found.records.size / 2;
            need(found.records.size % 2 == 0, Section::FORM_RECORDS, i, "has another size");
            need(found.pairs.size % 3 == 0, Section::FORM_PAIRS, i, "has another size");
            for (std::size_t k = 0; k < found.which.blocks.size; ++k) {
                need(found.which.blocks[k] < records, Section::FORM_BLOCKS, i, "no such record");
            }
            for (std::size_t k = 0; k < records; ++k) {
                const std::size_t size = found.records[2 * k] >> 16;
                const std::size_t first = found.records[2 * k + 1];
                need(first <= found.letters.size && size <= found.letters.size - first,
                     Section::FORM_RECORDS, i, "leaves the letters");
            }
            for (std::size_t k = 0; k < found.letters.size; ++k) {
                need(scalar(found.letters[k]), Section::FORM_LETTERS, i, "no code point");
            }
            for (std::size_t k = 2; k < found.pairs.size; k += 3) {
                need(scalar(found.pairs[k]), Section::FORM_PAIRS, i, "no code point");
            }
            tables_.forms.push_back(found);
        }
    }

    std::string_view string(std::uint32_t place, std::uint32_t size) const {
        need(place <= strings_.size && size <= strings_.size - place, Section::STRINGS, 0,
             "out of range");
        const std::string_view found(strings_.data + place, size);
        need(is_utf8(found), Section::STRINGS, 0, "not UTF-8");
        return found;
    }

    void check_steps() {
        const std::size_t count = info_[STEP_COUNT];
        const std::size_t early = info_[NORMALIZER_STEPS];
        need(count <= 256 && early <= count, "number of steps");
        const auto rows = array<std::uint32_t>(Section::STEPS, 0, 5 * count);
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
            need(right, Section::STEPS, i, "unknown, or out of range");
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
    Sections sections_;
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
