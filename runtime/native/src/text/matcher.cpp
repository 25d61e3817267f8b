#include "text/matcher.h"

#include <algorithm>

#include "text/utf8.h"

namespace lcc {
namespace {

constexpr std::size_t LONG = 128;  // bytes read in vain that are worth remembering

}  // namespace

void Matcher::put(std::string_view text, bool ends) {
    if (kept_.empty()) {
        scan(text, ends);
        if (gap_ < text.size()) {
            kept_ = text.substr(gap_);
        }
    } else {
        kept_ += text;
        scan(kept_, ends);
        kept_.erase(0, gap_);
    }
    start_ -= gap_;
    place_ -= gap_;
    if (found_ != NOWHERE) {
        found_ -= gap_;
    }
    if (vain_from_ < gap_) {
        const std::size_t old = std::min(gap_ - vain_from_, vain_.size());
        vain_.erase(vain_.begin(), vain_.begin() + static_cast<std::ptrdiff_t>(old));
        vain_from_ = gap_;
    }
    vain_from_ -= gap_;
    gap_ = 0;
}

void Matcher::scan(std::string_view text, bool ends) {
    while (start_ < text.size() && advance(text, ends)) {
        if (place_ - (found_ == NOWHERE ? start_ : found_) > LONG) {
            remember(text);
        }
        if (found_ == NOWHERE) {  // no match begins here
            start_ += utf8_size(text[start_]);
        } else {
            if (gap_ < start_ || open_) {
                between(text.substr(gap_, start_ - gap_), true);
            }
            item(text.substr(start_, found_ - start_), true, true, true);
            gap_ = start_ = found_;
        }
        place_ = start_;
        found_ = NOWHERE;
        state_ = 1;
    }
    if (gap_ < start_) {
        between(text.substr(gap_, start_ - gap_), false);
        gap_ = start_;
    }
    if (ends) {
        if (open_) {
            between({}, true);
        }
        end();
        vain_.clear();
    }
}

// Follows the present try as far as the text goes; false = what follows must be known first.
bool Matcher::advance(std::string_view text, bool ends) {
    const std::uint16_t* next = automaton_.next.data;
    const std::size_t width = automaton_.width;
    std::uint32_t state = state_;
    std::size_t place = place_;
    while (true) {
        if (place - vain_from_ < vain_.size() && vain_[place - vain_from_] == state) {
            break;
        }
        if (place >= text.size()) {
            if (!ends) {
                state_ = state;
                place_ = place;
                return false;
            }
            if (next[state * width + width - 1] & Automaton::MATCH) {
                found_ = place;
            }
            break;
        }
        std::size_t behind = place;
        const std::uint16_t entry =
            next[state * width + automaton_.classes[utf8_next(text, behind)]];
        if (entry & Automaton::MATCH) {
            found_ = place;
        }
        state = entry & 0x7FFFU;
        if (state == 0) {
            break;
        }
        place = behind;
    }
    place_ = place;
    return true;
}

// The states of the try that has just ended, behind its match.
void Matcher::remember(std::string_view text) {
    const std::size_t from = found_ == NOWHERE ? start_ : found_;
    std::uint32_t state = 1;
    std::vector<std::uint16_t> states(place_ - from, 0);
    for (std::size_t place = start_; place < place_;) {
        if (place > from) {
            states[place - from] = static_cast<std::uint16_t>(state);
        }
        const std::uint32_t kind = automaton_.classes[utf8_next(text, place)];
        state = automaton_.next[state * automaton_.width + kind] & 0x7FFFU;
    }
    vain_ = std::move(states);
    vain_from_ = from;
}

void Matcher::between(std::string_view part, bool last) {
    item(part, false, !open_, last);
    open_ = !last;
}

}  // namespace lcc
