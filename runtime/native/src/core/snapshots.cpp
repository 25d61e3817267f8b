#include "core/snapshots.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace lcc {

Snapshots::Snapshots(const Buffers& buffers, const Names& names) {
    for (const std::string& name : names) {
        states_.push_back(&buffers.at(name));
        for (Copy* copy : copies()) {
            copy->states.emplace_back(buffers.tensor(name).view().bytes());
        }
    }
}

int64_t Snapshots::oldest() const {
    std::optional<int64_t> first;
    for (const Copy* copy : {&turn_, &near_, &nearer_}) {
        if (copy->place && (!first || *copy->place < *first)) {
            first = copy->place;
        }
    }
    return first.value_or(0);
}

void Snapshots::pass_by(int64_t place, const Hidden& hidden) {
    std::optional<int64_t> last;
    for (const Copy* copy : copies()) {
        if (copy->place && (!last || *copy->place > *last)) {
            last = copy->place;
        }
    }
    if (any() && (!last || place - *last >= SNAPSHOT_GAP)) {
        std::swap(near_, nearer_);
        copy(nearer_, place, hidden);
    }
}

std::pair<int64_t, Hidden> Snapshots::back(int64_t place) {
    const Copy* nearest = nullptr;
    for (Copy* copy : copies()) {
        if (copy->place && *copy->place > place) {
            copy->place.reset();
        }
        if (copy->place && (nearest == nullptr || *copy->place > *nearest->place)) {
            nearest = copy;
        }
    }
    if (nearest == nullptr) {
        throw Error(LCC_ERROR_INTERNAL, "no copy of the states before entry " +
                                            std::to_string(place));
    }
    for (size_t i = 0; i < states_.size(); ++i) {
        std::memcpy(states_[i]->tensor->view().data, nearest->states[i].data(),
                    nearest->states[i].size());
    }
    return {*nearest->place, nearest->hidden};
}

void Snapshots::forget() {
    for (Copy* copy : copies()) {
        copy->place.reset();
    }
}

void Snapshots::copy(Copy& into, int64_t place, const Hidden& hidden) {
    for (size_t i = 0; i < states_.size(); ++i) {
        std::memcpy(into.states[i].data(), states_[i]->tensor->view().data, into.states[i].size());
    }
    into.place = place;
    into.hidden = hidden;
}

}  // namespace lcc
