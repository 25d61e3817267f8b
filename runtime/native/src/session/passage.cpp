#include "session/passage.h"

#include <algorithm>

namespace lcc {

namespace {

bool is_inside(std::string_view text, size_t place) {
    return place < text.size() && (static_cast<unsigned char>(text[place]) & 0xC0) == 0x80;
}

std::string_view head(std::string_view text) {
    size_t end = std::min(text.size(), SEAM_CONTEXT);
    while (end > 0 && is_inside(text, end)) {
        --end;
    }
    return text.substr(0, end);
}

}  // namespace

std::string_view tail(std::string_view text) {
    size_t place = text.size() > SEAM_CONTEXT ? text.size() - SEAM_CONTEXT : 0;
    while (is_inside(text, place)) {
        ++place;
    }
    return text.substr(place);
}

FollowingText::FollowingText(const Tokenizer& tokenizer, Reading how, std::string_view before)
    : tokenizer_(tokenizer), how_(how), before_(tail(before)), end_(before_),
      encoder_(tokenizer, how) {}

bool FollowingText::add(std::string_view bytes) {
    waiting_ += bytes;
    end_ += bytes.size() > 2 * SEAM_CONTEXT ? bytes.substr(bytes.size() - 2 * SEAM_CONTEXT) : bytes;
    if (end_.size() > 4 * SEAM_CONTEXT) {
        end_.erase(0, end_.size() - 2 * SEAM_CONTEXT);
    }
    return before_.empty() || waiting_.size() >= SEAM_CONTEXT + 4;
}

int64_t FollowingText::join(const TokenIds& held, int64_t rewindable) {
    joined_ = true;
    if (before_.empty()) {
        return 0;
    }
    const TokenIds old = tokenizer_.encode(before_, how_);
    const TokenIds now = tokenizer_.encode(before_ + std::string(head(waiting_)), how_);
    waiting_.insert(0, before_);
    while (skip_ < old.size() && skip_ < now.size() && old[skip_] == now[skip_]) {
        ++skip_;
    }
    const size_t drop = old.size() - skip_;
    if (static_cast<int64_t>(drop) <= rewindable && drop <= held.size() &&
        std::equal(old.begin() + static_cast<ptrdiff_t>(skip_), old.end(),
                   held.end() - static_cast<ptrdiff_t>(drop))) {
        return static_cast<int64_t>(drop);
    }
    skip_ = 0;  // what was read stays: the tokens that begin behind it are read
    for (size_t bytes = 0; skip_ < now.size() && bytes < before_.size(); ++skip_) {
        bytes += tokenizer_.token_bytes(now[skip_]).size();
    }
    return 0;
}

TokenIds FollowingText::ids(bool last) {
    TokenIds ids;
    encoder_.feed(waiting_, ids);
    waiting_.clear();
    if (last) {
        encoder_.finish(ids);
    }
    const size_t skipped = std::min(skip_, ids.size());
    skip_ -= skipped;
    ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(skipped));
    return ids;
}

}  // namespace lcc
