// What the states of recurrent layers were at some places of a text: a state cannot be undone.
//
// To go back to a place, the nearest copy before it is put back, and what follows is read again.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "core/buffers.h"

namespace lcc {

constexpr int64_t SNAPSHOT_GAP = 16;  // tokens between two copies, at least

// The state after the final norm of one token; nothing = it is not known.
using Hidden = std::optional<std::vector<char>>;

class Snapshots {
public:
    // `names`: the buffers of states; without any, nothing is ever copied. Takes all memory now.
    Snapshots(const Buffers& buffers, const Names& names);

    bool any() const { return !states_.empty(); }

    // The first place that can be gone back to; without states any.
    int64_t oldest() const;

    // Copies what the states are now, where something new begins.
    void begin_turn(int64_t place, const Hidden& hidden) { copy(turn_, place, hidden); }

    // Copies what the states are now, if the last copy was made long enough ago.
    void pass_by(int64_t place, const Hidden& hidden);

    // Puts back the copy nearest to a place, and forgets those behind it; its place, and the hidden
    // state before it.
    std::pair<int64_t, Hidden> back(int64_t place);

    // None of the places exists any more.
    void forget();

private:
    struct Copy {
        std::vector<std::vector<char>> states;
        std::optional<int64_t> place;  // entries that the cache held then
        Hidden hidden;
    };

    void copy(Copy& into, int64_t place, const Hidden& hidden);
    std::array<Copy*, 3> copies() { return {&turn_, &near_, &nearer_}; }

    std::vector<Buffer*> states_;
    Copy turn_;           // where the last text, prompt or message begins, or behind a cycle since
    Copy near_, nearer_;  // the last two places where a step began
};

}  // namespace lcc
