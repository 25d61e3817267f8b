#include "archive/recovery.h"

#include <algorithm>
#include <map>

#include "core/error.h"

namespace lcc {

namespace {

using Headers = std::map<int64_t, BlockHeader>;  // by number

// The headers from the first number on, as far as none is missing.
std::vector<BlockHeader> following(const Headers& headers, int64_t first) {
    std::vector<BlockHeader> blocks;
    for (auto each = headers.find(first); each != headers.end();) {
        const BlockHeader& block = each->second;
        blocks.push_back(block);
        each = headers.find(block.number + 1);
        const int64_t row = block.first_row + block.rows;
        if (each != headers.end() && each->second.first_row != row) {
            throw archive_error("block " + std::to_string(each->first) + " begins at row " +
                                std::to_string(each->second.first_row) + ", wanted row " +
                                std::to_string(row) + "; delete the file and begin anew");
        }
    }
    return blocks;
}

// The blocks that follow one another; their columns are not looked at.
FoundBlocks find_blocks(const BlockFile& file) {
    const int64_t slots = file.slots(), modulus = slots == 0 ? LARGEST_NUMBER : slots;
    Headers headers;
    FoundBlocks found;
    std::vector<int64_t> damaged;
    for (int64_t slot = 0; slot < file.held(); ++slot) {
        const std::string raw = file.read_header(slot);
        const std::optional<BlockHeader> header = decode_block_header(file.layout(), raw);
        if (header && header->number % modulus == slot) {
            headers[header->number] = *header;
        } else if (raw.find_first_not_of('\0') != std::string::npos) {
            damaged.push_back(slot);
        }
    }
    if (headers.empty()) {
        return {{}, damaged};
    }
    const int64_t newest = headers.rbegin()->first;
    const int64_t first = slots == 0 ? 0 : headers.upper_bound(newest - slots)->first;
    found.blocks = following(headers, first);
    const int64_t end = first + static_cast<int64_t>(found.blocks.size());
    if (end <= newest &&
        std::find(damaged.begin(), damaged.end(), end % modulus) != damaged.end()) {
        throw archive_error("header of block " + std::to_string(end) +
                            " is damaged; delete the file and begin anew");
    }
    // Older ones first: while a newer header is there, it shows that they are old.
    for (auto each = headers.begin(); each != headers.lower_bound(first); ++each) {
        found.clear.push_back(each->first % modulus);
    }
    for (auto each = headers.rbegin(); each != headers.rend() && each->first >= end; ++each) {
        found.clear.push_back(each->first % modulus);
    }
    found.clear.insert(found.clear.end(), damaged.begin(), damaged.end());
    return found;
}

}  // namespace

FoundBlocks keep_whole(BlockFile& file) {
    FoundBlocks found = find_blocks(file);
    std::vector<BlockHeader>& blocks = found.blocks;
    const BlockHeader oldest = blocks.empty() ? BlockHeader{} : blocks.front();
    const bool any = !blocks.empty();
    while (!blocks.empty() && file.any_wrong(blocks.back().number)) {
        found.clear.push_back(file.slot(blocks.back().number));
        blocks.pop_back();
    }
    while (blocks.size() > 1 && blocks.front().number != 0 &&
           file.any_wrong(blocks.front().number)) {
        found.clear.push_back(file.slot(blocks.front().number));
        blocks.erase(blocks.begin());
    }
    if (any && blocks.empty()) {
        file.write_start({oldest.number, oldest.first_row});
    }
    for (int64_t slot : found.clear) {
        file.clear(slot);
    }
    return found;
}

}  // namespace lcc
