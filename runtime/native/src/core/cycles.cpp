// Cycles of an executor, and what questions bring back from its archive.

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/executor.h"

namespace lcc {

Cycle Executor::evict(const TokenIds& catalyst, int64_t left) {
    read({});
    const auto begin = std::chrono::steady_clock::now();
    const int64_t before = used();
    if (!evicts() || before <= sizes_.budget) {
        throw cache_error("nothing to evict: " + std::to_string(before) + " entries, budget " +
                          std::to_string(sizes_.budget));
    }
    const int64_t extra = reads_catalyst_ ? static_cast<int64_t>(catalyst.size()) : 0;
    if (extra > at("reserved")) {
        throw cache_error("catalyst: " + std::to_string(extra) + " tokens, " +
                          std::to_string(at("reserved")) + " slots for them");
    }
    make_room(extra);
    numbers_["left"] = left;
    if (!manifest_.schedule.marks.empty()) {
        mark_newest();
    }
    change(manifest_.schedule.cycle, catalyst);
    if (at("used") > sizes_.budget) {  // reading would ask for another one for ever
        broken_ = true;
        throw artifact_error("a cycle left " + std::to_string(at("used")) +
                             " entries, wanted budget (" + std::to_string(sizes_.budget) +
                             ") at most; the schedule is wrong");
    }
    after_cycle();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    return {tokens(), before, used(), time.count()};
}

// Lets the marks be those of the newest tokens, where a cycle comes before it is due.
void Executor::mark_newest() {
    const int64_t wanted = std::max(at("kept"), at("used") - at("newest"));
    const TokenIds since = since_cycle();
    const TokenIds ids(since.begin() + static_cast<ptrdiff_t>(wanted - at("kept")), since.end());
    if (at("marked") != wanted && static_cast<int64_t>(ids.size()) <= rewindable()) {
        const Interpreter::StatesKept kept(interpreter_);
        try {
            rewind(static_cast<int64_t>(ids.size()));
            newest_from_ = wanted;
            if (at("used") == wanted) {
                interpreter_.mark();
            }
            steps(ids, manifest_.schedule.read);
        } catch (...) {
            newest_from_ = due_from_;
            throw;
        }
        newest_from_ = due_from_;
    }
    if (at("marked") >= at("used")) {
        throw cache_error("nothing was read since the state was loaded; feed before a cycle");
    }
}

// Places of the cache are others now.
void Executor::after_cycle() {
    snapshots_.forget();
    begin_turn();
    if (!manifest_.schedule.marks.empty()) {
        interpreter_.mark();
    }
}

std::optional<Recall> Executor::recall(const TokenIds& question) {
    read({});
    if (archive_ == nullptr || question.empty() || tokens() <= used()) {
        return std::nullopt;
    }
    const auto begin = std::chrono::steady_clock::now();
    const int64_t layer = manifest_.groups[0].layers.at(0);
    const KeptTokens old = kept_tokens(layer);
    const Numbers before = counters();
    change(manifest_.schedule.flush);
    if (!archive_->stopped().empty() || at("archived") <= sizes_.budget) {
        // As if nothing had been appended: what is not in the archive cannot come back from there.
        for (const auto& [name, value] : before) {
            numbers_.at(name) = value;
        }
        return std::nullopt;
    }
    const auto count = std::min<ptrdiff_t>(static_cast<ptrdiff_t>(question.size()),
                                           static_cast<ptrdiff_t>(sizes_.catalyst_size));
    const TokenIds ids(question.end() - count, question.end());
    make_room(count);
    try {
        change(manifest_.schedule.recall, ids);
    } catch (...) {
        buffers_.shrink();
        throw;
    }
    buffers_.shrink();
    after_cycle();
    const KeptTokens now = kept_tokens(layer);
    const auto old_end = old.positions.begin() + static_cast<ptrdiff_t>(old.used);
    int64_t back = 0;
    for (size_t i = 0; i < now.used; ++i) {
        back += std::binary_search(old.positions.begin(), old_end, now.positions[i]) ? 0 : 1;
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    return Recall{at("archived"), back, used(), time.count()};
}

}  // namespace lcc
