#include "core/executor.h"

#include <algorithm>

#include "artifact/check.h"
#include "core/error.h"

namespace lcc {

namespace {

Numbers all_numbers(const Manifest& manifest, const CacheSizes& sizes) {
    Numbers numbers = manifest.constants;
    numbers["capacity"] = sizes.capacity;
    numbers["budget"] = sizes.budget;
    numbers["chunk_size"] = sizes.chunk_size;
    numbers.insert(manifest.counters.begin(), manifest.counters.end());
    return numbers;
}

bool asks_for_catalyst(const Blocks& blocks) {
    return std::any_of(blocks.begin(), blocks.end(), [](const Block& block) {
        return block.over && block.over->ids == Ids::catalyst;
    });
}

}  // namespace

Executor::Executor(const Manifest& manifest, const CacheSizes& sizes, Engine& engine)
    : manifest_(manifest), sizes_(sizes), numbers_(all_numbers(manifest, sizes)),
      buffers_(manifest, numbers_), interpreter_(manifest, numbers_, buffers_, engine),
      snapshots_(buffers_, interpreter_.states()),
      reads_catalyst_(asks_for_catalyst(manifest.schedule.cycle)) {
    cache_bytes_ = buffers_.bytes();
    due_from_ = manifest.schedule.marks.empty() ? 0 : usable() - at("newest");
    newest_from_ = due_from_;
    clear();
}

Numbers Executor::counters() const {
    Numbers counters;
    for (const auto& each : manifest_.counters) {
        counters[each.first] = at(each.first);
    }
    return counters;
}

int64_t Executor::held_bytes() const {
    int64_t total = 0;
    buffers_.each_saved(numbers_, [&](const Buffer& buffer, int64_t, int64_t rows) {
        const View view{nullptr, buffer.spec.dtype, saved_shape(buffer, rows)};
        total += static_cast<int64_t>(view.bytes());
    });
    return total;
}

TokenIds Executor::since_cycle() const {
    const View rows = Buffers::rows(buffers_.at("ids"), at("kept"), at("used"));
    TokenIds ids(rows.as<int64_t>(), rows.as<int64_t>() + rows.shape[0]);
    ids.insert(ids.end(), again_.begin(), again_.end());
    return ids;
}

void Executor::check() const {
    if (broken_) {
        throw cache_error("a cycle failed half-way and the cache is lost; reset the session");
    }
}

void Executor::read(const TokenIds& ids) { steps(ids, manifest_.schedule.read); }

// Reads what is to be read again, and ids, by a list; then(tokens) after each step.
void Executor::steps(const TokenIds& new_ids, const Blocks& blocks,
                     const std::function<void(int64_t)>& then) {
    check();
    TokenIds ids = again_;
    ids.insert(ids.end(), new_ids.begin(), new_ids.end());
    if (const int64_t room = usable() - at("used"); static_cast<int64_t>(ids.size()) > room) {
        throw cache_error(std::to_string(ids.size()) + " tokens to read, " + std::to_string(room) +
                          " slots are free; run a cycle first");
    }
    for (size_t place = 0; place < ids.size();) {
        int64_t count = std::min(static_cast<int64_t>(ids.size() - place), sizes_.chunk_size);
        for (const Group& group : manifest_.groups) {
            if (group.align) {
                count = std::min(count, at(*group.align) - at("tokens") % at(*group.align));
            }
        }
        if (const int64_t mark = newest_from_ - at("used"); mark > 0) {
            count = std::min(count, mark);
        }
        make_room(count);
        if (snapshots_.any()) {
            snapshots_.pass_by(at("used"), last_hidden());
        }
        // Of ids that are read again, the beginning is known already.
        const int64_t known = std::max<int64_t>(
            0, static_cast<int64_t>(beginning_.size()) - at("tokens"));
        const TokenIds part(ids.begin() + static_cast<ptrdiff_t>(place),
                            ids.begin() + static_cast<ptrdiff_t>(place) + count);
        change(blocks, part);
        for (int64_t i = known; i < count && beginning_.size() < BEGINNING_TOKENS; ++i) {
            beginning_.push_back(part[static_cast<size_t>(i)]);
        }
        place += static_cast<size_t>(count);
        again_.erase(again_.begin(),
                     again_.begin() + std::min<ptrdiff_t>(
                                          count, static_cast<ptrdiff_t>(again_.size())));
        if (at("used") == newest_from_) {
            interpreter_.mark();
        }
        if (then) {
            then(count);
        }
    }
}

Hidden Executor::last_hidden() const {
    const int64_t row = at("state");
    if (row < 0) {
        return std::nullopt;
    }
    const View view = Buffers::rows(buffers_.at("hidden"), row, row + 1);
    const auto bytes = static_cast<const char*>(view.data);
    return std::vector<char>(bytes, bytes + view.bytes());
}

void Executor::begin_turn() {
    if (again_.empty()) {  // else there is a copy of this place already
        snapshots_.begin_turn(at("used"), last_hidden());
    }
}

// Compacts the groups that lack slots for `count` more entries, or whose block has ended.
void Executor::make_room(int64_t count) {
    for (size_t i = 1; i < manifest_.groups.size(); ++i) {
        const Group& group = manifest_.groups[i];
        const int64_t slots = group.slots.named() ? at(group.slots.name) : group.slots.number;
        const bool due = group.align && at("tokens") % at(*group.align) == 0;
        if (at(group.used) != 0 && (due || at(group.used) + count > slots)) {
            change(manifest_.schedule.compact.at(group.name));
        }
    }
}

// Runs a list that changes the cache. Where it fails, the counters are as before; what lies behind
// them is lost but after a step, which only adds to it.
void Executor::change(const Blocks& blocks, const TokenIds& ids) {
    const Numbers before = numbers_;
    const Schedule& schedule = manifest_.schedule;
    const bool adds =
        &blocks == &schedule.read || &blocks == &schedule.nll || &blocks == &schedule.flush;
    has_logits_ = false;
    broken_ = !adds || snapshots_.any();
    try {
        interpreter_.run(blocks, ids);
    } catch (...) {
        for (const auto& [name, value] : before) {
            numbers_.at(name) = value;
        }
        throw;
    }
    broken_ = false;
}

const float* Executor::logits() {
    read({});
    if (at("state") == at("no_state")) {
        throw cache_error("nothing was read yet, nothing to go on from; feed a text");
    }
    if (!has_logits_) {
        interpreter_.run(manifest_.schedule.logits);
        has_logits_ = true;
    }
    const Tensor& tensor = buffers_.tensor("logits");
    if (tensor.view().count() < manifest_.vocab_size) {
        throw artifact_error("logits has " + std::to_string(tensor.view().count()) +
                             " numbers, the vocabulary " + std::to_string(manifest_.vocab_size));
    }
    return tensor.as<float>();
}

std::vector<float> Executor::nll(const TokenIds& ids) {
    read({});  // what a rewind has left to be read again
    std::vector<float> found;
    const bool first_of_text = tokens() == 0;
    steps(ids, manifest_.schedule.nll, [&](int64_t count) {
        const int64_t first = manifest_.schedule.log ? at("used") - count : 0;
        const View rows = Buffers::rows(buffers_.at("nll"), first, first + count);
        found.insert(found.end(), rows.as<float>(), rows.as<float>() + count);
    });
    if (first_of_text && !found.empty()) {
        found[0] = 1e30f;
    }
    return found;
}

void Executor::reset() {
    if (archive_ != nullptr && archive_->known()) {
        archive_->clear();
    }
    clear();
}

void Executor::clear() {
    for (const auto& [name, value] : manifest_.counters) {
        numbers_.at(name) = value;
    }
    if (archive_ != nullptr) {
        numbers_.at("archiving") = 1;
    }
    buffers_.clear();
    beginning_.clear();
    again_.clear();
    broken_ = has_logits_ = false;
    snapshots_.forget();
    begin_turn();
}

void Executor::attach(std::unique_ptr<Archive> archive) {
    archive_ = std::move(archive);
    interpreter_.archive = archive_.get();
    numbers_.at("archiving") = 1;
}

void Executor::detach() {
    if (archive_ != nullptr) {
        interpreter_.archive = nullptr;
        archive_.reset();
        numbers_.at("archiving") = 0;
    }
}

}  // namespace lcc
