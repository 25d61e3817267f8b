#include "text/split_stage.h"

namespace lcc {

void SplitStage::item(std::string_view part, bool match, bool first, bool last) {
    const bool hit = match != invert_;
    if (behaviour_ == Behaviour::ISOLATED) {
        next_.put(part, last);
        return;
    }
    if (behaviour_ == Behaviour::REMOVED) {
        if (!hit) {
            next_.put(part, last);
        }
        return;
    }
    if (first && open_ && !joins(hit)) {
        close();
    }
    next_.put(part, false);
    open_ = true;
    if (last) {
        before_ = hit;
    }
}

// Whether an item belongs to the piece before it.
bool SplitStage::joins(bool hit) const {
    switch (behaviour_) {
        case Behaviour::WITH_PREVIOUS:
            return hit && !before_;
        case Behaviour::WITH_NEXT:
            return before_ && !hit;
        default:
            return hit == before_;
    }
}

void SplitStage::close() {
    next_.put({}, true);
    open_ = false;
}

void SplitStage::end() {
    if (open_) {
        close();
    }
    before_ = false;
}

void ReplaceStage::item(std::string_view part, bool match, bool, bool) {
    if (match) {
        growth_.made(content_.size());
    }
    next_.put(match ? content_ : part, false);
}

}  // namespace lcc
