#include "text/merge_stage.h"

#include <algorithm>
#include <cstring>
#include <queue>

#include "text/utf8.h"

namespace lcc {
namespace {

constexpr std::size_t FEW = 40;        // units that are looked through for each merge
constexpr std::size_t WORDS_MET = 2048;
constexpr std::size_t SHORT = 2048;    // bytes of text

}  // namespace

MergeStage::MergeStage(const Tables& tables) : tables_(tables) {
    for (std::size_t i = 0; i < ascii_.size(); ++i) {
        const char letter = static_cast<char>(i);
        ascii_[i] = tables.in_bytes ? NONE : tables.word({&letter, 1});
    }
}

void MergeStage::put(std::string_view text, bool ends) {
    read_ += text.size();
    if (tables_.cuts) {
        cut(text, ends);
        return;
    }
    if (kept_.empty() && ends) {
        word(text);
        return;
    }
    kept_ += text;
    if (ends) {
        word(kept_);
        kept_.clear();
    }
}

// Pieces of letters may be as long as the text. They are cut between letters that no merge joins.
void MergeStage::cut(std::string_view text, bool ends) {
    std::size_t start = 0;  // of the word, if nothing of it was kept
    const auto finish = [&](std::size_t end) {
        const std::string_view part = text.substr(start, end - start);
        if (!kept_.empty()) {
            kept_ += part;
        }
        finish_word(kept_.empty() ? part : std::string_view(kept_));
        kept_.clear();
        start = end;
    };
    for (std::size_t place = 0; place < text.size();) {
        const std::size_t size = utf8_size(text[place]);
        const std::size_t count = units_.size();
        const bool unknown = unknown_;
        add_letter(text.substr(place, size));
        if (count > 0 && units_.size() > count && !(unknown && unknown_) &&
            !joined(units_[count - 1], units_[count])) {
            fresh_.assign(units_.begin() + static_cast<std::ptrdiff_t>(count), units_.end());
            units_.resize(count);
            finish(place);
            units_ = fresh_;
        }
        place += size;
    }
    if (ends) {
        finish(text.size());
        unknown_ = false;
    } else {
        kept_ += text.substr(start);
    }
}

// Whether some token holds both units side by side. Those of small ids are asked for once.
bool MergeStage::joined(std::uint32_t left, std::uint32_t right) {
    const std::size_t place = (left * 31 + right) % JOINS_MET;
    Join& known = joins_[place];
    if (known.left != left || known.right != right) {
        known = {left, right, tables_.joined(left, right)};
    }
    return known.joined;
}

// A word whose units are known.
void MergeStage::finish_word(std::string_view text) {
    const std::uint32_t id = units_.size() > 1 ? tables_.word(text) : NONE;
    if (id != NONE) {
        write(id);
    } else if (units_.size() > 1) {
        Met* known = met(text);
        if (!known || !known->write_if(text, *ids_)) {
            merge(text, known);
        }
    } else {
        finish_units();
    }
    units_.clear();
}

void MergeStage::word(std::string_view text) {
    if (text.empty()) {
        return;
    }
    const std::uint32_t id = tables_.word(text);
    if (id != NONE) {
        write(id);
        return;
    }
    Met* known = met(text);
    if (known && known->write_if(text, *ids_)) {
        return;
    }
    for (std::size_t place = 0; place < text.size();) {
        const std::size_t size = tables_.in_bytes ? 1 : utf8_size(text[place]);
        add_letter(text.substr(place, size));
        place += size;
    }
    unknown_ = false;
    merge(text, known);
}

// Merges the units of a word, and remembers what became of it.
void MergeStage::merge(std::string_view text, Met* known) {
    const std::size_t before = ids_->size();
    finish_units();
    const std::size_t count = ids_->size() - before;
    if (known && count <= Met::IDS) {
        std::memcpy(known->word.data(), text.data(), text.size());
        known->size = static_cast<std::uint8_t>(text.size());
        known->count = static_cast<std::uint8_t>(count);
        std::copy_n(ids_->begin() + static_cast<std::ptrdiff_t>(before), count, known->ids.begin());
    }
}

bool MergeStage::Met::write_if(std::string_view text, std::vector<std::int32_t>& out) const {
    const bool same = size == text.size() && std::memcmp(word.data(), text.data(), size) == 0;
    if (same) {
        out.insert(out.end(), ids.begin(), ids.begin() + count);
    }
    return same;
}

// Where a word's tokens are, or are to be, remembered; nullptr = nowhere.
MergeStage::Met* MergeStage::met(std::string_view text) {
    if (text.size() > Met::BYTES || read_ < SHORT) {
        return nullptr;
    }
    if (met_.empty()) {
        met_.resize(WORDS_MET);
    }
    return &met_[std::hash<std::string_view>()(text) % WORDS_MET];
}

// The unit of a letter, or of a byte; its bytes where it has none, or the unknown token.
void MergeStage::add_letter(std::string_view letter) {
    const auto first = static_cast<unsigned char>(letter[0]);
    const std::uint32_t unit = tables_.in_bytes ? tables_.units[first]
                               : first < 0x80   ? ascii_[first]
                                                : tables_.word(letter);
    if (unit != NONE) {
        units_.push_back(unit);
        unknown_ = false;
    } else if (tables_.byte_fallback) {
        for (const char byte : letter) {
            units_.push_back(tables_.units[static_cast<unsigned char>(byte)]);
        }
        unknown_ = false;
    } else if (tables_.unknown != NONE) {
        if (!(unknown_ && tables_.fuse_unknown)) {
            units_.push_back(tables_.unknown);
        }
        unknown_ = true;
    }
}

void MergeStage::finish_units() {
    if (units_.size() <= FEW) {
        merge_few();
    } else {
        merge_many();
    }
    for (const std::uint32_t unit : units_) {
        write(unit);
    }
    units_.clear();
}

// Looks for the first of all pairs again and again.
void MergeStage::merge_few() {
    std::array<const std::uint32_t*, FEW> pairs;
    std::size_t size = units_.size();
    const auto look_up = [&](std::size_t i) { pairs[i] = tables_.pair(units_[i], units_[i + 1]); };
    for (std::size_t i = 0; i + 1 < size; ++i) {
        look_up(i);
    }
    while (size > 1) {
        std::size_t best = size;
        std::uint32_t rank = NONE;
        for (std::size_t i = 0; i + 1 < size; ++i) {
            if (pairs[i] && pairs[i][2] < rank) {
                rank = pairs[i][2];
                best = i;
            }
        }
        if (best == size) {
            break;
        }
        units_[best] = pairs[best][3];
        for (std::size_t i = best + 1; i + 1 < size; ++i) {
            units_[i] = units_[i + 1];
            pairs[i - 1] = pairs[i];
        }
        --size;
        if (best > 0) {
            look_up(best - 1);
        }
        if (best + 1 < size) {
            look_up(best);
        }
    }
    units_.resize(size);
}

// The same with a heap over a linked list: n log n for a word of n units.
void MergeStage::merge_many() {
    constexpr std::uint32_t END = NONE;
    struct Link {
        std::uint32_t before, behind;
    };
    struct Entry {
        std::uint32_t rank, place, left, right, merged;

        bool operator<(const Entry& other) const {  // the queue has the largest one in front
            return rank != other.rank ? rank > other.rank : place > other.place;
        }
    };
    const auto size = static_cast<std::uint32_t>(units_.size());
    std::vector<Link> links(size);
    std::vector<Entry> entries;
    const auto entry = [&](std::uint32_t place, std::uint32_t behind, auto&& put) {
        if (const std::uint32_t* pair = tables_.pair(units_[place], units_[behind])) {
            put(Entry{pair[2], place, pair[0], pair[1], pair[3]});
        }
    };
    for (std::uint32_t i = 0; i < size; ++i) {
        links[i] = {i == 0 ? END : i - 1, i + 1 == size ? END : i + 1};
        if (i + 1 < size) {
            entry(i, i + 1, [&](const Entry& each) { entries.push_back(each); });
        }
    }
    std::priority_queue<Entry> queue(std::less<Entry>(), std::move(entries));
    const auto push = [&](const Entry& each) { queue.push(each); };
    while (!queue.empty()) {
        const Entry top = queue.top();
        queue.pop();
        const std::uint32_t place = top.place;
        const std::uint32_t behind = links[place].behind;
        if (units_[place] != top.left || behind == END || units_[behind] != top.right) {
            continue;  // one of the two was merged meanwhile
        }
        units_[place] = top.merged;
        units_[behind] = NONE;
        links[place].behind = links[behind].behind;
        if (links[behind].behind != END) {
            links[links[behind].behind].before = place;
            entry(place, links[behind].behind, push);
        }
        if (links[place].before != END) {
            entry(links[place].before, place, push);
        }
    }
    units_.erase(std::remove(units_.begin(), units_.end(), NONE), units_.end());
}

}  // namespace lcc
