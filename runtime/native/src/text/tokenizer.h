// Text to token ids and back, by the tables of an artifact.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lcc {

struct Tables;

// How added tokens in a text are read.
enum class Reading {
    TOKENS,  // as tokens
    MARKED,  // the same, but for places between marks: see `mark`
    PLAIN,   // control tokens as the letters that they are written with, the others as tokens
    LETTERS  // all of them as letters
};

// A tokenizer, for any number of threads.
class Tokenizer {
public:
    // Opens `text.bin`. Throws Error (artifact): it cannot be read or is damaged.
    static std::unique_ptr<Tokenizer> open(const std::string& path);
    ~Tokenizer();

    // The ids of a whole text, without those that begin one. Bytes that are no UTF-8 are U+FFFD.
    std::vector<std::int32_t> encode(std::string_view text, Reading how = Reading::TOKENS) const;

    // The ids of a control token that is read as plain text: of its letters as they stand inside a
    // text, and never its own.
    std::vector<std::int32_t> spell(std::string_view text) const;

    // A text whose control tokens stand between marks, so that Reading::MARKED takes them as
    // letters: what others wrote, within a text of one's own.
    std::string mark(std::string_view text) const;

    // The text of ids, without special tokens unless they are wanted. Ids that are no token are
    // left out; bytes that are no UTF-8 are U+FFFD.
    std::string decode(const std::vector<std::int32_t>& ids, bool special = false) const;

    // What a token stands for, as bytes: maybe a part of a character.
    std::string token_bytes(std::int32_t id) const;

    bool is_special(std::int32_t id) const;
    std::int32_t size() const;  // ids are 0 .. size-1

    const Tables& tables() const { return *tables_; }

private:
    explicit Tokenizer(std::unique_ptr<const Tables> tables);

    std::unique_ptr<const Tables> tables_;
};

}  // namespace lcc
