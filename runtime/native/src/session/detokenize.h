// Bytes of tokens to text as they come: no half characters, nothing of a stop string.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lcc {

// Gives out whole characters of UTF-8; bytes that are none become U+FFFD.
class Characters {
public:
    // The text that is certain now.
    std::string add(std::string_view bytes);
    // The rest, with U+FFFD for a character that never became complete.
    std::string end();

private:
    std::string take(bool all);

    std::string held_;
};

// Cuts a stream of text before the first stop string; holds back what may become one.
//
// Control tokens are no part of the text that is given out, and stop strings may contain them.
class StopStrings {
public:
    explicit StopStrings(std::vector<std::string> stops);

    // The text that is certain not to belong to a stop string; sets `found`. `shown`: whether the
    // piece is to be given out; else a stop string is looked for in it.
    std::string add(std::string_view piece, bool shown = true);
    // What was held back and became no stop string.
    std::string end() { return take(held_.size()); }

    bool found() const { return found_; }

private:
    std::string take(size_t count);

    std::vector<std::string> stops_;
    std::string held_;
    std::vector<bool> shown_;  // of each byte held
    bool found_ = false;
};

}  // namespace lcc
