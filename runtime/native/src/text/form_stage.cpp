#include "text/form_stage.h"

#include <algorithm>

#include "text/utf8.h"

namespace lcc {
namespace {

// Hangul syllables are put together by a rule.
constexpr std::uint32_t S = 0xAC00, L = 0x1100, V = 0x1161, T = 0x11A7;
constexpr std::uint32_t LS = 19, VS = 21, TS = 28, SS = LS * VS * TS;

}  // namespace

void FormStage::put(std::string_view text, bool ends) {
    if (kept_.empty()) {
        kept_ = text.substr(run(text, ends));
    } else {
        kept_ += text;
        kept_.erase(0, run(kept_, ends));
    }
    if (ends) {
        next_.put({}, true);
    }
}

// Hands on what is certain; returns where the rest begins.
std::size_t FormStage::run(std::string_view text, bool ends) {
    const auto ascii = [&](std::size_t i) { return static_cast<unsigned char>(text[i]) < 0x80; };
    std::size_t done = 0;   // handed on up to here
    std::size_t place = 0;  // up to here it stays as it is
    while (place < text.size()) {
        while (form_.plain && place + 1 < text.size() && ascii(place) && ascii(place + 1)) {
            ++place;
        }
        std::size_t behind = place;
        const std::uint32_t first = utf8_next(text, behind);
        std::size_t end = behind;
        bool known = false;  // what follows begins with a boundary
        while (end < text.size() && !known) {
            std::size_t after = end;
            known = boundary(utf8_next(text, after));
            end = known ? end : after;
        }
        if (!known && !ends) {
            break;
        }
        if (end > behind || !alone(first)) {
            if (done < place) {
                next_.put(text.substr(done, place - done), false);
            }
            change(text.substr(place, end - place));
            done = end;
        }
        place = end;
    }
    if (done < place) {
        next_.put(text.substr(done, place - done), false);
    }
    return place;
}

bool FormStage::boundary(std::uint32_t point) const {
    return (form_.records[2 * form_.which[point]] & FormTable::BOUNDARY) != 0;
}

bool FormStage::alone(std::uint32_t point) const {
    if (form_.hangul && point - S < SS) {
        return form_.mode == FormTable::COMPOSE;
    }
    return (form_.records[2 * form_.which[point]] & FormTable::ALONE) != 0;
}

std::uint32_t FormStage::order(std::uint32_t point) const {
    return form_.records[2 * form_.which[point]] >> 8 & 0xFF;
}

void FormStage::change(std::string_view text) {
    points_.clear();
    for (std::size_t place = 0; place < text.size();) {
        take_apart(utf8_next(text, place));
    }
    if (form_.mode != FormTable::MAP) {
        put_in_order();
    }
    if (form_.mode == FormTable::COMPOSE) {
        put_together();
    }
    written_.clear();
    for (const std::uint32_t point : points_) {
        utf8_append(written_, point);
    }
    next_.put(written_, false);
}

void FormStage::take_apart(std::uint32_t point) {
    if (form_.hangul && point - S < SS) {
        const std::uint32_t s = point - S;
        points_.push_back(L + s / (VS * TS));
        points_.push_back(V + s % (VS * TS) / TS);
        if (s % TS != 0) {
            points_.push_back(T + s % TS);
        }
        return;
    }
    const std::size_t record = form_.which[point];
    const std::size_t size = form_.records[2 * record] >> 16;
    const std::size_t first = form_.records[2 * record + 1];
    growth_.made(size);
    for (std::size_t i = 0; i < size; ++i) {
        points_.push_back(form_.letters[first + i]);
    }
    if (size == 0) {
        points_.push_back(point);
    }
}

void FormStage::put_in_order() {
    const auto lower = [&](std::uint32_t a, std::uint32_t b) { return order(a) < order(b); };
    auto begin = points_.begin();
    while (begin != points_.end()) {
        begin = std::find_if(begin, points_.end(), [&](auto point) { return order(point) != 0; });
        const auto end =
            std::find_if(begin, points_.end(), [&](auto point) { return order(point) == 0; });
        std::stable_sort(begin, end, lower);
        begin = end;
    }
}

void FormStage::put_together() {
    std::size_t size = 0;  // points that stay
    std::size_t base = 0;  // the last one of them without order, if there is one
    bool based = false;
    std::uint32_t last = 0;  // order of the last one
    for (const std::uint32_t point : points_) {
        const std::uint32_t own = order(point);
        const bool beside = last == 0 && base + 1 == size;
        if (based && (beside || (last > 0 && last < own))) {
            const std::uint32_t joined = pair(points_[base], point);
            if (joined != NONE) {
                points_[base] = joined;
                continue;
            }
        }
        points_[size] = point;
        last = own;
        if (own == 0) {
            base = size;
            based = true;
        }
        ++size;
    }
    points_.resize(size);
}

std::uint32_t FormStage::pair(std::uint32_t first, std::uint32_t second) const {
    if (form_.hangul && first - L < LS && second - V < VS) {
        return S + ((first - L) * VS + second - V) * TS;
    }
    if (form_.hangul && first - S < SS && (first - S) % TS == 0 && second - T - 1 < TS - 1) {
        return first + second - T;
    }
    std::size_t low = 0;
    std::size_t high = form_.pairs.size / 3;
    while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        const std::uint32_t* row = form_.pairs.data + 3 * middle;
        if (row[0] < first || (row[0] == first && row[1] < second)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const std::uint32_t* row = form_.pairs.data + 3 * low;
    const bool found = low < form_.pairs.size / 3 && row[0] == first && row[1] == second;
    return found ? row[2] : NONE;
}

}  // namespace lcc
