// The headers of an archive, as bytes, as docs/format.md ("Archive") lays them out. Little-endian.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "archive/layout.h"
#include "archive/numbering.h"

namespace lcc {

constexpr int64_t LARGEST_NUMBER = int64_t{1} << 62;  // of blocks and rows
constexpr int64_t PAGE_AT = 64, START_AT = 24;        // in the header of the file

// What a file says of itself; `slots`: most blocks that it holds, 0 = no limit.
struct FilePage {
    std::string fingerprint;
    std::vector<FileColumn> columns;
    int64_t rows = 0;
    int64_t slots = 0;
};

// The header of a file that holds no block and never held one.
std::string encode_file_header(const FilePage& page);

// How long the page is, from the first 64 bytes of a file. Throws Error (archive): it is no
// archive, or of another version.
int64_t page_bytes(const std::string& start);

// The page, from the first 64 bytes and the text behind them. Throws Error (archive): it is
// damaged.
FilePage decode_page(const std::string& start, const std::string& text);

// The numbers of the next block and row while the file holds none, and their checksum.
std::string encode_start(const BlockStart& start);
// From the first 64 bytes of a file. Throws Error (archive): it is damaged.
BlockStart decode_start(const std::string& start);

// The header of a block, whose columns have these checksums.
std::string encode_block_header(const BlockLayout& layout, const BlockHeader& block,
                                const std::vector<uint32_t>& crcs);
// Nothing = these bytes are no whole header of a block.
std::optional<BlockHeader> decode_block_header(const BlockLayout& layout,
                                               const std::string& header);
// The checksum of one column, from the header of its block.
uint32_t crc_of_column(const std::string& header, size_t index);

}  // namespace lcc
