// Token ids into the executor: steps and cycles, as many as a text of any length takes.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <optional>

#include "core/executor.h"

namespace lcc {

// Counts that only grow; times in seconds. Cycles are part of the time they happened in.
struct Clock {
    double load_seconds = 0;
    int64_t prefill_tokens = 0;
    double prefill_seconds = 0;
    int64_t decode_tokens = 0;
    double decode_seconds = 0;
    double first_token_seconds = -1;
    int64_t cycles = 0;
    double cycle_seconds = 0;
    int64_t recalls = 0;
    double recall_seconds = 0;
    int64_t recalled = -1;
};

// How far a feed has come; `fraction`: of the text, 0 where its end is not known.
struct Progress {
    int64_t tokens;
    double fraction;
    int64_t used, cycles;
    double seconds;
};

// How one call reads.
struct Feeding {
    std::optional<TokenIds> catalyst;  // for the cycles of this call; nothing = the session's own
    bool protect = false;              // no cycle evicts anything read up to the end of this text
    bool last = false;                 // the text ends with the last id
    bool asks = false;                 // bring what it asks for back from the archive first
    std::function<bool(const Progress&)> progress;  // after every step; true stops
    std::vector<float>* nll = nullptr;              // takes the negative log likelihoods
};

// Thrown where lcc_cancel or a callback stops a call: the session keeps what it holds.
struct Stopped {};

// Seconds since a moment.
using Moment = std::chrono::steady_clock::time_point;
double seconds_since(Moment begin);

class Reader {
public:
    Reader(Executor& executor, double load_seconds);

    // Tokens of the text so far, fed and generated, and how many of the newest can be taken back.
    int64_t tokens() const { return executor_.tokens() + count(pending_); }
    int64_t rewindable() const { return executor_.rewindable() + count(pending_); }
    // Ids of the tokens since the last cycle, pending ones included.
    TokenIds newest() const;

    // A text, piece by piece: the result is that of one piece, wherever it is cut. An error, or
    // Stopped, ends it; what was read is in the session.
    void begin(Feeding how);
    // `to`: fraction of the text that ends with these ids; 0 = not known.
    void write(const TokenIds& ids, double to = 0);
    void end();
    // Ends it without reading what was held back.
    void abandon() { feeding_ = false; }
    bool is_feeding() const { return feeding_; }
    // Tokens read by the present feed, or the last one.
    int64_t fed() const { return tokens() - begun_; }

    // A whole text of ids.
    void feed(const TokenIds& ids, Feeding how);

    // Brings generated ids into the cache, with a cycle first where there is no room.
    void read_pending();
    // A generated id: part of the text, read with what comes next.
    void add_pending(int32_t id) { pending_.push_back(id); }
    const TokenIds& pending() const { return pending_; }
    void set_pending(TokenIds ids) { pending_ = std::move(ids); }

    void cycle(const std::optional<TokenIds>& catalyst = std::nullopt, int64_t left = -1);
    // Runs a cycle now, where there is something to evict.
    void distill();
    void rewind(int64_t count);
    void reset();

    // What the next cycles look for.
    std::optional<Catalyst> catalyst;
    std::function<void(const Cycle&)> on_cycle;
    Clock clock;
    // Number of the last call that moved the session.
    int64_t epoch = 0;
    // Set from any thread: stops the present call before its next step.
    std::atomic<bool> stop{false};

private:
    static int64_t count(const TokenIds& ids) { return static_cast<int64_t>(ids.size()); }
    int64_t room_behind_cycle() const { return executor_.usable() - executor_.sizes().budget; }
    void pump(bool ended);
    int64_t advance(const TokenIds& ids, const Feeding& how, int64_t left);
    void recall(TokenIds& question);
    void check_protection() const;
    void told();

    Executor& executor_;
    TokenIds pending_;  // ids that were generated and given out, and are not read yet
    Feeding how_;
    bool feeding_ = false;
    std::deque<int32_t> queue_;  // ids of the present feed that are still to be read
    double to_ = 0;              // fraction of the text that was written
    int64_t written_ = 0, taken_ = 0;
    int64_t begun_ = 0, cycles_before_ = 0;
    Moment begin_;
};

}  // namespace lcc
