// Tokens that are taken back, and what the cache kept of a text.

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/executor.h"

namespace lcc {

// Entries that every group still has of those read since the last cycle or compact.
int64_t Executor::least_room() const {
    int64_t least = at("used") - at("kept");
    for (const Group& group : manifest_.groups) {
        least = std::min(least, at(group.used) - at(group.kept));
    }
    return least;
}

int64_t Executor::rewindable() const {
    const int64_t least = least_room(), again = static_cast<int64_t>(again_.size());
    if (snapshots_.any()) {
        const int64_t back = at("used") - snapshots_.oldest();
        return back <= least ? used() - snapshots_.oldest() : again;
    }
    if (least == at("used") - at("kept")) {
        return least + again;
    }
    // A group was compacted: the last token that stays may have to be read again.
    return std::max<int64_t>(0, least + again - (manifest_.schedule.log ? 0 : 1));
}

void Executor::rewind(int64_t count) {
    check();
    if (count < 0 || count > rewindable()) {
        throw cache_error("rewind(" + std::to_string(count) + "): wanted 0 to " +
                          std::to_string(rewindable()) + " tokens");
    }
    if (count == 0) {
        return;
    }
    const bool log = manifest_.schedule.log;
    const int64_t total = tokens() - count;
    TokenIds since = since_cycle();
    since.resize(since.size() - static_cast<size_t>(count));
    Hidden hidden;
    if (snapshots_.any()) {
        const auto [place, state] = snapshots_.back(used() - count);
        again_.assign(since.begin() + static_cast<ptrdiff_t>(place - at("kept")), since.end());
        hidden = state;
    } else if (log || total == 0 || since.empty()) {
        again_.clear();
    } else {
        again_.assign(since.end() - 1, since.end());
    }
    const int64_t lower = at("tokens") - total + static_cast<int64_t>(again_.size());
    Names added;
    for (const Block& block : manifest_.schedule.read) {
        for (const std::string& name : block.add) {
            if (std::find(added.begin(), added.end(), name) == added.end()) {
                added.push_back(name);
                numbers_.at(name) -= lower;
            }
        }
    }
    const bool unknown = !again_.empty() || total == 0;
    numbers_["state"] = unknown ? at("no_state") : log ? at("used") : at("zero");
    if (hidden && !unknown && !log) {
        const View row = Buffers::rows(buffers_.at("hidden"), 0, 1);
        std::memcpy(row.data, hidden->data(), hidden->size());
    }
    numbers_["known"] = std::min(at("known"), at("used"));
    numbers_["protected"] = std::min(at("protected"), used());
    if (static_cast<int64_t>(beginning_.size()) > total) {
        beginning_.resize(static_cast<size_t>(total));
    }
    has_logits_ = false;
}

KeptTokens Executor::kept_tokens(int64_t layer) const {
    const int64_t count = static_cast<int64_t>(manifest_.kv_heads.size());
    if (layer < 0 || layer >= count) {
        throw config_error("layer is " + std::to_string(layer) + ", the model has " +
                           std::to_string(count) + "; wanted 0 to " + std::to_string(count - 1));
    }
    const auto group = std::find_if(
        manifest_.groups.begin(), manifest_.groups.end(), [&](const Group& each) {
            return std::count(each.layers.begin(), each.layers.end(), layer) != 0;
        });
    const int64_t kept = at(group->kept);
    const int64_t end = at(group->used) + static_cast<int64_t>(again_.size());
    KeptTokens result;
    result.heads = static_cast<size_t>(manifest_.kv_heads[static_cast<size_t>(layer)]);
    result.used = static_cast<size_t>(end);
    for (size_t head = 0; head < result.heads; ++head) {
        for (int64_t slot = 0; slot < end; ++slot) {
            result.positions.push_back(slot - end + tokens());
        }
    }
    for (const std::string& name : buffers_.names()) {
        const Buffer& buffer = buffers_.at(name);
        const BufferSpec& spec = buffer.spec;
        const bool here = spec.layer ? *spec.layer == layer : spec.group == group->name;
        if (spec.role != "token_position" || !spec.saved || !here || kept == 0 ||
            spec.dtype != Dtype::int64) {
            continue;
        }
        if (kept > buffer.tensor->rows(spec.axis)) {
            throw artifact_error(name + " has fewer rows than entries are kept");
        }
        // Rows are those of KV heads, each of one number a slot.
        std::vector<int64_t> packed(static_cast<size_t>(
            View{nullptr, spec.dtype, saved_shape(buffer, kept)}.count()));
        buffer.tensor->copy_rows_out(spec.axis, 0, kept, packed.data());
        const size_t rows = packed.size() / static_cast<size_t>(kept);
        for (size_t head = 0; head < result.heads; ++head) {
            for (size_t slot = 0; slot < static_cast<size_t>(kept); ++slot) {
                const size_t from = spec.axis == 0 ? slot * rows + std::min(head, rows - 1)
                                                   : std::min(head, rows - 1) *
                                                             static_cast<size_t>(kept) +
                                                         slot;
                result.positions[head * result.used + slot] = packed[from];
            }
        }
    }
    return result;
}

}  // namespace lcc
