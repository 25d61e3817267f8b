// Where everything lies in an archive's file, in bytes.
//
//     header           padded to a multiple of 4096
//     slot 0           block header | column | column | ...   each column at a multiple of 64
//     slot 1           ...                                    each slot at a multiple of 4096
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lcc {

constexpr int64_t BLOCK_PAGE = 4096;  // of blocks: what mmap asks of an offset on most systems

// dtypes of columns of a file; those of buffers are fewer.
enum class FileDtype { float32, float16, int8, int32, int64 };

size_t width(FileDtype dtype);
const char* name_of(FileDtype dtype);

// One array of each block. ROWS stands for the axis of rows in `shape`, at most once: without it,
// the array is one of the block, for all of its rows.
struct FileColumn {
    static constexpr int64_t ROWS = -1;

    std::string name;
    FileDtype dtype = FileDtype::float32;
    std::vector<int64_t> shape;

    bool has_rows() const;
    bool operator==(const FileColumn& other) const;
    std::string shown() const;  // such as `float16 ["rows", 2, 64]`
};

// Sizes and places of blocks that hold up to `rows` rows. The axis of rows is the first one.
class BlockLayout {
public:
    BlockLayout(std::vector<FileColumn> columns, int64_t rows);

    const std::vector<FileColumn>& columns() const { return columns_; }
    int64_t rows() const { return rows_; }

    // The place of a column by its name. Throws Error (config) where there is none.
    size_t index(const std::string& name) const;

    // Bytes of a column's row; of one without rows, those of its array.
    size_t row_bytes(size_t index) const { return row_bytes_[index]; }
    // Bytes of a column's array in a block, padding left out.
    size_t column_bytes(size_t index) const;
    // Where a column begins in a block.
    int64_t offset(size_t index) const { return offsets_[index]; }

    // Bytes in front of the first column, and of a block, with header and padding.
    int64_t header_bytes() const { return header_bytes_; }
    int64_t block_bytes() const { return block_bytes_; }
    // Bytes in the file of a row of a full block, rounded up.
    int64_t bytes_per_row() const { return (block_bytes_ + rows_ - 1) / rows_; }

private:
    std::vector<FileColumn> columns_;
    int64_t rows_;
    std::vector<size_t> row_bytes_;
    std::vector<int64_t> offsets_;
    int64_t header_bytes_ = 0, block_bytes_ = 0;
};

// The next multiple at or behind `size`.
inline int64_t padded(int64_t size, int64_t multiple) {
    return (size + multiple - 1) / multiple * multiple;
}

}  // namespace lcc
