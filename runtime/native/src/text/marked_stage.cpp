#include "text/marked_stage.h"

namespace lcc {
namespace {

// Where a mark begins, or the end.
std::size_t next_mark(std::string_view text) {
    constexpr std::size_t SAME = 2;  // bytes that both marks begin with
    std::size_t place = text.find(MARK_BEGIN.substr(0, SAME));
    while (place != std::string_view::npos) {
        const std::string_view found = text.substr(place, MARK_BEGIN.size());
        if (found == MARK_BEGIN || found == MARK_END) {
            return place;
        }
        place = text.find(MARK_BEGIN.substr(0, SAME), place + 1);
    }
    return text.size();
}

}  // namespace

void MarkedStage::put(std::string_view text, bool ends) {
    while (!text.empty()) {
        const std::size_t place = next_mark(text);
        const std::string_view before = text.substr(0, place);
        if (inside_) {
            held_ += before;
        } else if (!before.empty()) {
            next_.put(before, false);
            open_ = true;
        }
        if (place == text.size()) {
            break;
        }
        mark(text.substr(place, MARK_BEGIN.size()) == MARK_BEGIN);
        text.remove_prefix(place + MARK_BEGIN.size());
    }
    if (!ends) {
        return;
    }
    if (inside_ && !held_.empty()) {  // the place does not end: it is a text of its own
        next_.put(held_, true);
    } else if (open_) {
        next_.put({}, true);
    }
    held_.clear();
    inside_ = open_ = false;
}

void MarkedStage::mark(bool begins) {
    if (!inside_) {
        close();
        inside_ = begins;
        return;
    }
    if (begins) {  // the mark before had no end
        if (!held_.empty()) {
            next_.put(held_, true);
        }
        next_.restart();
    } else if (!held_.empty()) {
        spell_(held_);
    }
    held_.clear();
    inside_ = begins;
}

void MarkedStage::close() {
    if (open_) {
        next_.put({}, true);
        open_ = false;
    }
    next_.restart();
}

}  // namespace lcc
