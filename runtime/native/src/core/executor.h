// Reads token ids into the buffers of one session, and runs cycles; knows no text.
//
// A step writes behind `used`, and the counters that make its entries part of the cache are set last.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/archive.h"
#include "core/buffers.h"
#include "core/interpreter.h"
#include "core/sizes.h"
#include "core/snapshots.h"

namespace lcc {

constexpr size_t BEGINNING_TOKENS = 32;

// What one eviction did; entries per KV head.
struct Cycle {
    int64_t tokens, used_before, used_after;
    double seconds;
};

// What a question brought back: of `rows` of the archive, `returned` entries that the cache had not.
struct Recall {
    int64_t rows, returned, used;
    double seconds;
};

// The token positions of the entries of a layer: `heads` rows of `used` numbers, ascending.
struct KeptTokens {
    size_t heads = 0, used = 0;
    std::vector<int64_t> positions;
};

class Executor {
public:
    // Allocates the buffers. `manifest` and `engine` must outlive it; `sizes`: from `lowered`.
    Executor(const Manifest& manifest, const CacheSizes& sizes, Engine& engine);

    const Manifest& manifest() const { return manifest_; }
    const CacheSizes& sizes() const { return sizes_; }

    // Entries per KV head of the full layers, and tokens of the text: what a rewind has left to be
    // read again counts.
    int64_t used() const { return numbers_.at("used") + static_cast<int64_t>(again_.size()); }
    int64_t tokens() const { return numbers_.at("tokens") + static_cast<int64_t>(again_.size()); }
    int64_t usable() const { return sizes_.capacity - numbers_.at("reserved"); }
    bool evicts() const { return !manifest_.schedule.cycle.empty(); }
    bool reads_catalyst() const { return reads_catalyst_; }
    const TokenIds& beginning() const { return beginning_; }
    Numbers counters() const;
    int64_t cache_bytes() const { return cache_bytes_; }
    int64_t held_bytes() const;
    bool has_states() const { return snapshots_.any(); }
    void set_protected(int64_t size) { numbers_.at("protected") = size; }
    void set_number(const std::string& name, int64_t value) { numbers_.at(name) = value; }

    // Ids of the tokens read since the last cycle.
    TokenIds since_cycle() const;

    // Throws Error (cache) where a failure has left buffers half changed.
    void check() const;

    // Reads tokens into the slots behind `used`. Throws Error (cache) where they do not fit.
    void read(const TokenIds& ids);
    // The same; the negative log likelihood of each, in nats, given what the cache held.
    std::vector<float> nll(const TokenIds& ids);

    // Logits of the token after the last one read: vocab_size numbers, valid until the next step.
    const float* logits();

    // One cycle; `left`: tokens still to be read of a text whose last cycle this is, or -1.
    Cycle evict(const TokenIds& catalyst, int64_t left);

    // Fills the cache anew with what a question asks of the archive and of the cache itself.
    // Nothing where nothing was evicted yet, or where there is no archive.
    std::optional<Recall> recall(const TokenIds& question);

    // How many of the newest tokens can be taken back; takes them back.
    int64_t rewindable() const;
    void rewind(int64_t count);

    // Something new begins here: one may want to go back to this place.
    void begin_turn();

    KeptTokens kept_tokens(int64_t layer) const;

    // Forgets everything that was read; an archive of it is emptied by the first of the two.
    void reset();
    void clear();

    void attach(std::unique_ptr<Archive> archive);
    void detach();
    Archive* archive() const { return archive_.get(); }

private:
    friend class StateFile;

    int64_t at(const std::string& name) const { return numbers_.at(name); }
    void steps(const TokenIds& ids, const Blocks& blocks,
               const std::function<void(int64_t)>& then = nullptr);
    void make_room(int64_t count);
    void change(const Blocks& blocks, const TokenIds& ids = {});
    void mark_newest();
    void after_cycle();
    Hidden last_hidden() const;
    int64_t least_room() const;

    const Manifest& manifest_;
    CacheSizes sizes_;
    Numbers numbers_;  // constants and counters
    Buffers buffers_;
    Interpreter interpreter_;
    Snapshots snapshots_;
    std::unique_ptr<Archive> archive_;
    TokenIds beginning_;  // ids of the first tokens of the text
    TokenIds again_;      // ids that a rewind has left to be read again, with what comes next
    // Entries from which on a cycle that is due reads tokens again; 0 = it never does.
    int64_t due_from_ = 0, newest_from_ = 0;
    int64_t cache_bytes_ = 0;
    bool reads_catalyst_ = false, broken_ = false, has_logits_ = false;
};

}  // namespace lcc
