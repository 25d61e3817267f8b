// Which blocks are here, and which rows they hold: integers, no file.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace lcc {

// What a block says of itself, besides the checksums of its columns; `rows`: in use.
struct BlockHeader {
    int64_t number = 0, first_row = 0, rows = 0;
};

// Numbers of the next block and of its first row.
struct BlockStart {
    int64_t number = 0, row = 0;
};

class Numbering {
public:
    // Blocks that follow one another, oldest first; without any, the next one is that of `start`.
    Numbering(const std::vector<BlockHeader>& blocks, const BlockStart& start);

    // The blocks that are here are first .. end-1.
    int64_t first() const { return first_; }
    int64_t end() const { return first_ + size(); }
    int64_t size() const { return static_cast<int64_t>(first_rows_.size()) - 1; }

    // Rows before a block, or before the next one, since the first of all; rows of a block.
    int64_t first_row(int64_t block) const { return first_rows_[place(block)]; }
    int64_t count(int64_t block) const { return first_row(block + 1) - first_row(block); }
    // Rows since the first of all that are gone, and those that are here.
    int64_t lost() const { return first_rows_.front(); }
    int64_t length() const { return first_rows_.back() - first_rows_.front(); }

    // The block that holds a row; the first row here is row 0.
    int64_t block_of(int64_t row) const;

    // The blocks that `add` adds, called with each of these numbers of rows.
    std::vector<BlockHeader> next_blocks(const std::vector<int64_t>& sizes) const;
    void add(int64_t rows) { first_rows_.push_back(first_rows_.back() + rows); }
    // The oldest block is overwritten; the blocks from `end` on are dropped.
    void drop_oldest();
    void drop_from(int64_t end);

    std::string shown() const;

private:
    size_t place(int64_t block) const { return static_cast<size_t>(block - first_); }

    int64_t first_;
    std::deque<int64_t> first_rows_;  // of every block, and of the next one
};

}  // namespace lcc
