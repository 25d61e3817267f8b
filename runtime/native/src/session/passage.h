// Text that follows text: it has the ids that both have when they are tokenized at once.
#pragma once

#include <string>
#include <string_view>

#include "core/executor.h"
#include "session/text.h"

namespace lcc {

// The end of the text that a session holds, and the tokens in the session when it was read: with
// more of them, or fewer, it is not the end.
struct Passage {
    std::string text;
    int64_t tokens = -1;

    void note(std::string_view end, int64_t held);
};

// How a text goes on from another one: tokens of the first text to take back, and ids to read then.
struct Following {
    int64_t drop = 0;
    TokenIds ids;
};

// `before`: the end of what was read; `held`: the newest ids of the session, which end with those of
// `before`; `rewindable`: how many of them can be taken back.
Following following(const Tokenizer& tokenizer, const std::string& before, std::string_view text,
                    const TokenIds& held, int64_t rewindable);

// Throws Error (config) for bytes that are no UTF-8.
void check_utf8(std::string_view text, const std::string& what);

}  // namespace lcc
