#include "session/reader.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "session/catalyst.h"

namespace lcc {

namespace {

// Ends the time of a feed, however the scope is left.
class Timed {
public:
    Timed(const Reader& reader, Clock& clock)
        : reader_(reader), clock_(clock), before_(reader.tokens()),
          begin_(std::chrono::steady_clock::now()) {}
    ~Timed() {
        clock_.prefill_tokens += reader_.tokens() - before_;
        clock_.prefill_seconds += seconds_since(begin_);
    }

private:
    const Reader& reader_;
    Clock& clock_;
    int64_t before_;
    Moment begin_;
};

}  // namespace

double seconds_since(Moment begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Reader::Reader(Executor& executor, double load_seconds) : executor_(executor) {
    clock.load_seconds = load_seconds;
    catalyst = executor.manifest().text.catalyst;
}

TokenIds Reader::newest() const {
    TokenIds ids = executor_.since_cycle();
    ids.insert(ids.end(), pending_.begin(), pending_.end());
    return ids;
}

void Reader::begin(Feeding how) {
    executor_.check();
    if (executor_.archive() != nullptr && tokens() == 0) {
        executor_.archive()->check_new();
    }
    executor_.begin_turn();
    ++epoch;
    how_ = std::move(how);
    queue_.assign(pending_.begin(), pending_.end());
    written_ = taken_ = 0;
    to_ = 0;
    begun_ = tokens();
    cycles_before_ = clock.cycles;
    begin_ = std::chrono::steady_clock::now();
    feeding_ = true;
}

void Reader::write(const TokenIds& ids, double to) {
    queue_.insert(queue_.end(), ids.begin(), ids.end());
    written_ += count(ids);
    to_ = to;
    if (how_.protect) {
        check_protection();  // everything is read at the end
        return;
    }
    if (!how_.asks) {
        const Timed timed(*this, clock);
        pump(false);
    }
}

void Reader::end() {
    const Timed timed(*this, clock);
    if (how_.asks && executor_.archive() != nullptr) {
        TokenIds question(queue_.begin() + count(pending_), queue_.end());
        recall(question);
        queue_.assign(question.begin(), question.end());
    }
    pump(true);
    feeding_ = false;
    if (how_.protect) {
        executor_.set_protected(executor_.used());
    }
}

void Reader::feed(const TokenIds& ids, Feeding how) {
    begin(std::move(how));
    try {
        write(ids, 1);
        end();
    } catch (...) {
        feeding_ = false;
        throw;
    }
}

// Reads from the queue: all of it where the text has `ended`; else as long as what is read does not
// depend on what follows.
void Reader::pump(bool ended) {
    const int64_t chunk = executor_.sizes().chunk_size, room = room_behind_cycle();
    const int64_t ahead = how_.last ? std::max(chunk, room + 1) : chunk;
    while (!queue_.empty() && (ended || static_cast<int64_t>(queue_.size()) >= ahead)) {
        if (stop.exchange(false)) {
            feeding_ = false;
            throw Stopped();
        }
        const auto size = std::min(static_cast<ptrdiff_t>(queue_.size()),
                                   static_cast<ptrdiff_t>(chunk));
        const TokenIds ids(queue_.begin(), queue_.begin() + size);
        // Tokens still to be read, where they fit after one more cycle.
        const auto left = static_cast<int64_t>(queue_.size());
        const int64_t read = advance(ids, how_, how_.last && ended && left <= room ? left : -1);
        queue_.erase(queue_.begin(), queue_.begin() + read);
        taken_ += read;
        told();
    }
}

void Reader::told() {
    if (!how_.progress) {
        return;
    }
    const double share =
        written_ == 0 ? 1 : std::min(1.0, static_cast<double>(taken_) / static_cast<double>(written_));
    if (how_.progress({fed(), to_ * share, executor_.used(), clock.cycles - cycles_before_,
                       seconds_since(begin_)})) {
        feeding_ = false;
        throw Stopped();
    }
}

// More protected entries than a cycle can keep are refused before the first is read.
void Reader::check_protection() const {
    if (executor_.evicts()) {
        check_protected(executor_.used() + static_cast<int64_t>(queue_.size()),
                        executor_.sizes().recent_size, executor_.sizes().budget);
    }
}

// One step or one cycle; how many of the ids were read, 0 after a cycle.
int64_t Reader::advance(const TokenIds& ids, const Feeding& how, int64_t left) {
    const int64_t room = executor_.usable() - executor_.used();
    if (room <= 0) {
        if (!executor_.evicts()) {
            throw cache_error("the cache is full: " + std::to_string(executor_.used()) +
                              " entries in " + std::to_string(executor_.usable()) +
                              " slots, more tokens to read, and the artifact's policy never "
                              "evicts; compile with another policy or a larger capacity");
        }
        cycle(how.catalyst, left);
        return 0;
    }
    int64_t n = std::min({count(ids), executor_.sizes().chunk_size, room});
    if (executor_.has_states() && n == count(ids)) {  // the end of it may be taken back
        n -= n > SNAPSHOT_GAP ? SNAPSHOT_GAP : 0;
    }
    const TokenIds part(ids.begin(), ids.begin() + n);
    if (how.nll == nullptr) {
        executor_.read(part);
    } else {
        const std::vector<float> found = executor_.nll(part);
        how.nll->insert(how.nll->end(), found.begin(), found.end());
    }
    pending_.erase(pending_.begin(), pending_.begin() + std::min(n, count(pending_)));
    return n;
}

// Brings back from the archive what a question asks for. Of one that does not fit behind a recall
// the beginning is read first: it is a text with a question at its end.
void Reader::recall(TokenIds& question) {
    const int64_t room = room_behind_cycle();
    const int64_t text = std::max<int64_t>(0, count(question) - room);
    const Feeding plain;
    read_pending();
    for (int64_t place = 0; place < text;) {
        const int64_t size = std::min(text - place, executor_.sizes().chunk_size);
        place += advance(TokenIds(question.begin() + place, question.begin() + place + size), plain,
                         -1);
    }
    question.erase(question.begin(), question.begin() + text);
    if (const std::optional<Recall> found = executor_.recall(question)) {
        clock.recalled = found->returned;
        clock.recall_seconds += found->seconds;
        ++clock.recalls;
    }
}

void Reader::cycle(const std::optional<TokenIds>& ids, int64_t left) {
    const bool own = !ids || ids->empty();
    const Cycle done =
        executor_.evict(own ? cycle_ids(executor_, catalyst) : *ids, left);
    ++clock.cycles;
    clock.cycle_seconds += done.seconds;
    if (on_cycle) {
        on_cycle(done);
    }
}

void Reader::distill() {
    ++epoch;
    read_pending();
    if (executor_.evicts() && executor_.used() > executor_.sizes().budget) {
        cycle();
    }
}

void Reader::read_pending() {
    const Feeding plain;
    while (!pending_.empty()) {
        advance(TokenIds(pending_), plain, -1);
    }
}

void Reader::rewind(int64_t taken) {
    executor_.check();
    if (taken < 0 || taken > rewindable()) {
        throw cache_error(
            "rewind(" + std::to_string(taken) + "): " + std::to_string(rewindable()) +
            " tokens were read since " +
            (executor_.has_states() ? "the last text began" : "the last cycle") +
            ", only they can be taken back; save before feeding more, and load to go further back");
    }
    ++epoch;
    const int64_t pending = std::min(taken, count(pending_));
    pending_.resize(pending_.size() - static_cast<size_t>(pending));
    executor_.rewind(taken - pending);
}

void Reader::reset() {
    ++epoch;
    executor_.reset();
    pending_.clear();
    feeding_ = false;
    const double load_seconds = clock.load_seconds;
    clock = Clock();
    clock.load_seconds = load_seconds;
}

}  // namespace lcc
