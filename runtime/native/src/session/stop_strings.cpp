#include "session/stop_strings.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace lcc {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
    stops_.erase(std::remove(stops_.begin(), stops_.end(), ""), stops_.end());
}

std::string StopStrings::add(std::string_view piece, bool shown) {
    held_ += piece;
    shown_.insert(shown_.end(), piece.size(), shown);
    size_t cut = std::string::npos;
    for (const std::string& stop : stops_) {
        cut = std::min(cut, held_.find(stop));
    }
    if (cut != std::string::npos) {
        found_ = true;
        const std::string text = take(cut);
        held_.clear();
        shown_.clear();
        return text;
    }
    size_t keep = 0;  // bytes at the end that are a beginning of a stop string
    for (const std::string& stop : stops_) {
        for (size_t size = std::min(stop.size() - 1, held_.size()); size > keep; --size) {
            if (held_.compare(held_.size() - size, size, stop, 0, size) == 0) {
                keep = size;
            }
        }
    }
    while (keep < held_.size() &&  // never half of a character
           (static_cast<unsigned char>(held_[held_.size() - keep]) & 0xC0) == 0x80 && keep > 0) {
        ++keep;
    }
    return take(held_.size() - keep);
}

std::string StopStrings::take(size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) {
        if (shown_[i]) {
            text += held_[i];
        }
    }
    held_.erase(0, count);
    shown_.erase(shown_.begin(), shown_.begin() + static_cast<ptrdiff_t>(count));
    return text;
}

}  // namespace lcc
