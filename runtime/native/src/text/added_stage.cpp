#include "text/added_stage.h"

#include <utility>

#include "text/utf8.h"

namespace lcc {

AddedStage::AddedStage(const Tables& tables, const Tree& tree, Stage& next, Spell spell)
    : Passing(next), tables_(tables), tree_(tree), spell_(std::move(spell)) {
    int count = 0;
    for (int byte = 0; byte < 256; ++byte) {
        if (tree.root[static_cast<std::size_t>(byte)] != NONE) {
            only_ = byte;
            ++count;
        }
    }
    only_ = count == 1 ? only_ : -1;
    for (std::size_t i = 0; !spell_ && i < tables.added.size; i += 2) {
        strips_ = strips_ || (tables.added[i + 1] & LSTRIP);
    }
}

void AddedStage::put(std::string_view text, bool ends) {
    std::size_t old;
    if (kept_.empty()) {
        old = run(text, ends);
        kept_ = text.substr(old);
    } else {
        kept_ += text;
        old = run(kept_, ends);
        kept_.erase(0, old);
    }
    place_ -= old;
    done_ = 0;
    if (ends) {
        place_ = 0;
        skips_ = letter_ = false;
    }
}

// Hands on what is certain; returns where the rest begins.
std::size_t AddedStage::run(std::string_view text, bool ends) {
    done_ = 0;
    while (true) {
        while (skips_ && done_ < text.size()) {
            skips_ = is(text, done_, SPACE);
            done_ += skips_ ? utf8_size(text[done_]) : 0;
        }
        place_ = next_root(text, std::max(place_, done_));
        if (place_ == text.size()) {
            break;
        }
        std::size_t end = 0;
        std::uint32_t token = 0;
        Found found = longest(text, ends, end, token);
        if (found == Found::TOKEN && !spell_ && tables_.added[2 * token + 1] & SINGLE_WORD) {
            found = word(text, ends, end);
            place_ = found == Found::NOTHING ? end - 1 : place_;
        }
        if (found == Found::UNDECIDED) {
            break;
        }
        if (found == Found::TOKEN) {
            hit(text, end, token);
        } else {
            ++place_;
        }
    }
    const std::size_t end = ends ? text.size() : certain(text);
    if (ends) {
        close(text.substr(done_));
    } else if (done_ < end) {
        next_.put(text.substr(done_, end - done_), false);
        open_ = true;
    }
    if (end > 0 && tables_.sorts.pages.size > 0) {
        letter_ = is(text, utf8_before(text, end), LETTER);
    }
    return end;
}

// The next place with a byte that some token begins with.
std::size_t AddedStage::next_root(std::string_view text, std::size_t place) const {
    if (only_ >= 0) {
        place = text.find(static_cast<char>(only_), place);
        return place == std::string_view::npos ? text.size() : place;
    }
    while (place < text.size() && tree_.root[static_cast<unsigned char>(text[place])] == NONE) {
        ++place;
    }
    return place;
}

AddedStage::Found AddedStage::longest(std::string_view text, bool ends, std::size_t& end,
                                      std::uint32_t& token) const {
    Found found = Found::NOTHING;
    std::uint32_t node = tree_.root[static_cast<unsigned char>(text[place_])];
    for (std::size_t i = place_ + 1;; ++i) {
        if (tree_.nodes[3 * node + 2] != 0) {
            found = Found::TOKEN;
            end = i;
            token = tree_.nodes[3 * node + 2] - 1;
        }
        if (tree_.nodes[3 * node + 1] == 0) {
            return found;
        }
        if (i == text.size()) {
            return ends ? found : Found::UNDECIDED;
        }
        node = tree_.below(node, static_cast<unsigned char>(text[i]));
        if (node == NONE) {
            return found;
        }
    }
}

// Of a token that must stand by itself: neither behind a letter nor in front of one.
AddedStage::Found AddedStage::word(std::string_view text, bool ends, std::size_t end) const {
    const bool before = place_ == 0 ? letter_ : is(text, utf8_before(text, place_), LETTER);
    if (before) {
        return Found::NOTHING;
    }
    if (end == text.size()) {
        return ends ? Found::TOKEN : Found::UNDECIDED;
    }
    return is(text, end, LETTER) ? Found::NOTHING : Found::TOKEN;
}

void AddedStage::hit(std::string_view text, std::size_t end, std::uint32_t token) {
    const std::uint32_t flags = spell_ ? 0 : tables_.added[2 * token + 1];
    std::size_t start = place_;
    while (flags & LSTRIP && start > done_ && is(text, utf8_before(text, start), SPACE)) {
        start = utf8_before(text, start);
    }
    close(text.substr(done_, start - done_));
    if (spell_) {
        next_.restart();
        spell_(text.substr(place_, end - place_));
    } else {
        next_.token(tables_.added[2 * token]);
    }
    done_ = place_ = end;
    skips_ = flags & RSTRIP;
}

// Up to where the text is certain to lie between two tokens.
std::size_t AddedStage::certain(std::string_view text) const {
    std::size_t end = place_;
    while (strips_ && end > done_ && is(text, utf8_before(text, end), SPACE)) {
        end = utf8_before(text, end);
    }
    return end;
}

bool AddedStage::is(std::string_view text, std::size_t place, Sort sort) const {
    return (tables_.sorts[utf8_next(text, place)] & sort) != 0;
}

void AddedStage::close(std::string_view rest) {
    if (open_ || !rest.empty()) {
        next_.put(rest, true);
        open_ = false;
    }
}

}  // namespace lcc
