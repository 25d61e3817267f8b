#include "archive/numbering.h"

#include <algorithm>

namespace lcc {

Numbering::Numbering(const std::vector<BlockHeader>& blocks, const BlockStart& start)
    : first_(blocks.empty() ? start.number : blocks.front().number),
      first_rows_{blocks.empty() ? start.row : blocks.front().first_row} {
    for (const BlockHeader& block : blocks) {
        add(block.rows);
    }
}

int64_t Numbering::block_of(int64_t row) const {
    const auto behind = std::upper_bound(first_rows_.begin(), first_rows_.end(), row + lost());
    return first_ + (behind - first_rows_.begin()) - 1;
}

std::vector<BlockHeader> Numbering::next_blocks(const std::vector<int64_t>& sizes) const {
    std::vector<BlockHeader> blocks;
    int64_t number = end(), row = first_rows_.back();
    for (int64_t rows : sizes) {
        blocks.push_back({number, row, rows});
        ++number;
        row += rows;
    }
    return blocks;
}

void Numbering::drop_oldest() {
    first_rows_.pop_front();
    ++first_;
}

void Numbering::drop_from(int64_t end) {
    first_rows_.resize(place(end) + 1);
}

std::string Numbering::shown() const {
    return size() == 0 ? "no block is here"
                       : "blocks " + std::to_string(first_) + " .. " + std::to_string(end() - 1) +
                             " are here";
}

}  // namespace lcc
