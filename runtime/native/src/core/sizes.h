// The sizes of a session: as compiled, or lower where no program has them as numbers.
#pragma once

#include "artifact/manifest.h"

namespace lcc {

// What is asked for; 0 = as compiled.
struct AskedSizes {
    int64_t capacity = 0, budget = 0, chunk_size = 0;
};

// The compiled sizes with those that were asked for.
//
// Throws Error (cache): more than compiled; less where a program has it as a number. Error (config):
// sizes in which the budget leaves no room.
CacheSizes lowered(const Manifest& manifest, const AskedSizes& asked);

// Refuses a protected beginning of `size` entries that leaves a cycle nothing to choose.
void check_protected(int64_t size, int64_t recent_size, int64_t budget);

}  // namespace lcc
