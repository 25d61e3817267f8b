#include "session/passage.h"

#include <algorithm>

#include "artifact/json_parser.h"
#include "core/error.h"

namespace lcc {

namespace {

constexpr size_t CONTEXT = 1 << 11;  // bytes on either side of a seam that are looked at

bool is_inside(std::string_view text, size_t place) {
    return place < text.size() && (static_cast<unsigned char>(text[place]) & 0xC0) == 0x80;
}

// The last bytes of a text, of whole characters.
std::string_view tail(std::string_view text) {
    size_t place = text.size() > CONTEXT ? text.size() - CONTEXT : 0;
    while (is_inside(text, place)) {
        ++place;
    }
    return text.substr(place);
}

std::string_view head(std::string_view text) {
    size_t end = std::min(text.size(), CONTEXT);
    while (end > 0 && is_inside(text, end)) {
        --end;
    }
    return text.substr(0, end);
}

}  // namespace

void Passage::note(std::string_view end, int64_t held) {
    text = tail(end);
    tokens = held;
}

Following following(const Tokenizer& tokenizer, const std::string& before, std::string_view text,
                    const TokenIds& held, int64_t rewindable) {
    const std::string_view known = tail(before);
    if (known.empty()) {
        return {0, tokenizer.encode(text)};
    }
    const std::string both = std::string(known) + std::string(text);
    const TokenIds old = tokenizer.encode(known);
    const TokenIds now = tokenizer.encode(std::string(known) + std::string(head(text)));
    size_t same = 0;
    while (same < old.size() && same < now.size() && old[same] == now[same]) {
        ++same;
    }
    size_t drop = old.size() - same;
    const bool fits = static_cast<int64_t>(drop) <= rewindable && drop <= held.size() &&
                      std::equal(old.begin() + static_cast<ptrdiff_t>(same), old.end(),
                                 held.end() - static_cast<ptrdiff_t>(drop));
    if (!fits) {  // the text by itself: what begins behind the seam
        drop = same = 0;
        for (size_t bytes = 0; same < now.size() && bytes < known.size(); ++same) {
            bytes += tokenizer.token_bytes(now[same]).size();
        }
    }
    TokenIds ids = tokenizer.encode(both);
    ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(std::min(same, ids.size())));
    return {static_cast<int64_t>(drop), ids};
}

void check_utf8(std::string_view text, const std::string& what) {
    for (size_t place = 0; place < text.size();) {
        const size_t length = utf8_length(text, place);
        if (length == 0) {
            throw config_error(what + ": byte " + std::to_string(place) + " is no UTF-8");
        }
        place += length;
    }
}

}  // namespace lcc
