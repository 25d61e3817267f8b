// Stop strings in text that comes in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lcc {

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
