#include "text/simple_stages.h"

#include "text/utf8.h"

namespace lcc {

void ReplaceByteStage::put(std::string_view text, bool ends) {
    std::size_t place = text.find(byte_);
    if (place == std::string_view::npos) {
        next_.put(text, ends);
        return;
    }
    written_.clear();
    std::size_t done = 0;
    for (; place != std::string_view::npos; place = text.find(byte_, done)) {
        growth_.made(content_.size());
        written_ += text.substr(done, place - done);
        written_ += content_;
        done = place + 1;
    }
    written_ += text.substr(done);
    next_.put(written_, ends);
}

void PrefixStage::put(std::string_view text, bool ends) {
    if (decided_) {
        next_.put(text, ends);
    } else {
        kept_ += text;
        if (kept_.empty() || !decide(ends)) {
            return;
        }
        next_.put(kept_, ends);
        kept_.clear();
        decided_ = true;
    }
    if (ends) {
        decided_ = first_ = false;
    }
}

// Puts the text in front where it belongs; false = more of the piece must be known.
bool PrefixStage::decide(bool ends) {
    if (when_ == FIRST_UNLESS_THERE && !first_) {
        return true;
    }
    if (when_ != ALWAYS) {
        const std::size_t size = std::min(kept_.size(), content_.size());
        const bool alike = kept_.compare(0, size, content_.substr(0, size)) == 0;
        if (alike && size == content_.size()) {
            return true;
        }
        if (alike && !ends) {
            return false;
        }
    }
    growth_.made(content_.size());
    next_.put(content_, false);
    return true;
}

void PrefixStage::token(std::uint32_t id) {
    first_ = false;
    next_.token(id);
}

void PrefixStage::restart() {
    first_ = true;
    next_.restart();
}

void StripStage::put(std::string_view text, bool ends) {
    const auto space = [&](std::size_t place) {
        return (tables_.sorts[utf8_next(text, place)] & SPACE) != 0;
    };
    while (left_ && !begun_ && !text.empty() && space(0)) {
        text.remove_prefix(utf8_size(text[0]));
    }
    begun_ = begun_ || !text.empty();
    std::size_t end = text.size();
    while (right_ && end > 0 && space(utf8_before(text, end))) {
        end = utf8_before(text, end);
    }
    if (end > 0) {
        if (!kept_.empty()) {
            next_.put(kept_, false);
            kept_.clear();
        }
        next_.put(text.substr(0, end), false);
    }
    kept_ += text.substr(end);
    if (ends) {
        next_.put({}, true);
        kept_.clear();
        begun_ = false;
    }
}

}  // namespace lcc
