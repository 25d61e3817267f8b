// Which blocks of a file are whole, after whatever happened to the process that wrote it.
//
// A block is written into a slot whose header is zero, and its own header last. So a process that
// was killed leaves blocks that follow one another, and one slot behind them whose header is zero.
// A machine that lost power may have kept later blocks and lost earlier ones, or parts of them.
#pragma once

#include <cstdint>
#include <vector>

#include "archive/block_file.h"

namespace lcc {

// The slots of a file. `blocks`: whole, and following one another, oldest first; `clear`: slots of
// all other headers; clearing them in this order leaves, after each, a file in which the same
// blocks are found.
struct FoundBlocks {
    std::vector<BlockHeader> blocks;
    std::vector<int64_t> clear;
};

// Finds the whole blocks and clears all other slots. Columns are compared with their checksums from
// both ends on, until a block is whole; those between are left for their first use.
//
// Throws Error (archive): a block between others is damaged; SystemRefusal.
FoundBlocks keep_whole(BlockFile& file);

}  // namespace lcc
