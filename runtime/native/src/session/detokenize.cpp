#include "session/detokenize.h"

#include <algorithm>
#include <utility>

#include "artifact/json_parser.h"

namespace lcc {

namespace {

// How many bytes from `place` on begin a character that lacks only bytes behind them; 0 = none.
// `whole`: the text goes on behind them, so they will never be one.
size_t begun(std::string_view text, size_t place) {
    // A beginning of a character becomes one with some bytes behind it: two pairs reach all.
    for (const char* rest : {"\x80\x80\x80", "\xA0\x80\x80", "\x90\x80\x80", "\xBF\xBF\xBF",
                             "\x8F\xBF\xBF", "\x9F\xBF\xBF"}) {
        for (size_t size = std::min<size_t>(3, text.size() - place); size >= 1; --size) {
            const std::string grown = std::string(text.substr(place, size)) + rest;
            if (utf8_length(grown, 0) > size) {
                return size;
            }
        }
    }
    return 0;
}

}  // namespace

std::string Characters::add(std::string_view bytes) {
    held_ += bytes;
    return take(false);
}

std::string Characters::end() { return take(true); }

std::string Characters::take(bool all) {
    std::string text;
    size_t place = 0;
    while (place < held_.size()) {
        if (const size_t length = utf8_length(held_, place)) {
            text += held_.substr(place, length);
            place += length;
            continue;
        }
        const size_t part = begun(held_, place);
        if (!all && part > 0 && place + part == held_.size()) {
            break;  // its other bytes may come
        }
        text += "\xEF\xBF\xBD";
        place += std::max<size_t>(1, part);
    }
    held_.erase(0, place);
    return text;
}

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
