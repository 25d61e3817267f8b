// Text that follows text: it has the ids that both have when they are tokenized at once.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/executor.h"
#include "text/encoder.h"

namespace lcc {

constexpr size_t SEAM_CONTEXT = 1 << 11;  // bytes on either side of a seam that are looked at

// The last bytes of a text, of whole characters, as many as a seam is looked at.
std::string_view tail(std::string_view text);

// The end of the text that a session holds, and the tokens in the session when it was read: with
// more of them, or fewer, it is not the end.
struct Passage {
    std::string text;
    int64_t tokens = -1;
};

// A text on its way to ids, in parts, behind a text that was read before.
//
// A tokenizer treats the beginning of a text in its own way, so the end of what was read is
// tokenized along; where the seam changes tokens that were read, they are taken back.
class FollowingText {
public:
    // `before`: the end of what was read, "" = nothing.
    FollowingText(const Tokenizer& tokenizer, Reading how, std::string_view before);

    // Takes bytes of the text. False = more of them are wanted before `join`.
    bool add(std::string_view bytes);

    // Tokens to take back before the first id is read; once, when `add` was true, or at the end.
    // `held`: the newest ids of the session, which end with those of the text before.
    int64_t join(const TokenIds& held, int64_t rewindable);
    bool joined() const { return joined_; }

    // The ids that are certain now; `last`: those of the rest.
    TokenIds ids(bool last);

    // The end of both texts.
    std::string_view end() const { return tail(end_); }

private:
    const Tokenizer& tokenizer_;
    Reading how_;
    std::string before_, waiting_, end_;
    TextEncoder encoder_;
    size_t skip_ = 0;  // ids of the text before, which were read
    bool joined_ = false;
};

}  // namespace lcc
