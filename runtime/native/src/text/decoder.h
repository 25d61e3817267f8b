// Token ids to text as they come.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/tables.h"
#include "text/tokenizer.h"

namespace lcc {

// The byte that a token such as <0x0A> stands for.
char spelled_byte(std::string_view token);

// A token's text as it is shown; `first`: it begins the text.
std::string shown(const Tables& tables, std::string_view token, bool first);

// Turns ids into pieces of text that hold whole characters only. For one thread at a time.
class TextDecoder {
public:
    // special     special tokens are spelled out
    // begins      the first id begins a text: what is put in front of one is not shown
    explicit TextDecoder(const Tokenizer& tokenizer, bool special = false, bool begins = true);

    // The text that is certain now; empty while a character is incomplete.
    std::string add(std::int32_t id);

    // The rest, with U+FFFD for a character that never became complete.
    std::string end();

private:
    std::string whole_characters(bool last);
    std::string bytes_of_letters();
    std::string stripped(std::string text);

    const Tokenizer& tokenizer_;
    bool special_;
    bool first_;
    std::uint32_t strip_;  // spaces that may still go at the beginning
    std::string kept_;     // bytes that are not yet a character, or not yet certain
};

}  // namespace lcc
