// The catalyst prompt: what cycles look for.
#pragma once

#include <optional>

#include "core/executor.h"

namespace lcc {

// The ids that a cycle runs now: those of the catalyst, or the text's own beginning.
inline TokenIds cycle_ids(const Executor& executor, const std::optional<Catalyst>& catalyst) {
    if (!catalyst || !executor.reads_catalyst()) {
        return {};
    }
    if (catalyst->beginning == 0) {
        return catalyst->ids;
    }
    const TokenIds& beginning = executor.beginning();
    TokenIds ids = executor.manifest().text.separator;
    for (size_t i = 0; i < beginning.size() && static_cast<int64_t>(i) < catalyst->beginning; ++i) {
        ids.push_back(beginning[i]);
    }
    const auto most = static_cast<size_t>(executor.manifest().constants.at("reserved"));
    ids.resize(std::min(ids.size(), most));
    return ids;
}

}  // namespace lcc
