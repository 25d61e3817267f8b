// Blocks of rows in a file, appended by one session and read where they are mapped.
//
// A process that is killed while it writes leaves a file that opens with every block that was
// whole.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "archive/block_file.h"
#include "archive/numbering.h"

namespace lcc {

// Errors name the file, but for those of arguments that only a mistake in lcc can give.
class BlockArchive {
public:
    // Opens the archive at `path`, or makes one, for this session alone. A file that is empty
    // counts as none. Throws Error (archive), or Error (config) for a limit with no room for two
    // blocks.
    BlockArchive(const std::string& path, const std::string& fingerprint,
                 const BlockLayout& layout, int64_t limit_bytes);
    // Waits until the disk has all blocks, and lets others open the file.
    ~BlockArchive();

    const std::string& path() const { return path_; }
    const BlockLayout& layout() const { return file_.layout(); }
    const Numbering& numbering() const { return numbering_; }
    int64_t file_bytes() const { return file_.bytes(); }
    int64_t slots() const { return file_.slots(); }  // most blocks; 0 = no limit

    // What was not whole when the file was opened and is gone, in words; "" = nothing.
    const std::string& dropped() const { return dropped_; }
    // Why nothing more is appended, in words; "" = appending goes on.
    const std::string& stopped() const { return stopped_; }

    // Rows follow, as many blocks as they take, column by column; `commit` ends them. Nothing is
    // there before. All three do nothing where appending has stopped.
    //
    // They throw Error (archive) where the disk refuses: what was archived before is as it was, but
    // for the oldest block of a full file.
    void begin(int64_t count);
    // A column of these rows, in the file's dtype, its rows behind one another; of a column without
    // rows, one array a block.
    void put(size_t index, const void* data);
    void commit();

    // A column of a block where it lies in the file, for all rows of a block; valid until a column
    // of another block is asked for, or anything is written. Throws Error (archive): it changed
    // since it was written (checked once in a session).
    const char* column(int64_t block, size_t index);

    // Drops the blocks from this number on; the next block has it. Overwritten ones stay lost.
    void truncate(int64_t end);
    // Drops all blocks and begins anew with block 0 and row 0; appending goes on.
    void clear();

private:
    // Where the disk refuses, nothing more is written.
    void stopping(const std::function<void()>& write);
    void drop(int64_t end);
    void cut();

    std::string path_;
    BlockFile file_;
    Numbering numbering_;
    std::vector<BlockHeader> coming_;         // blocks that are being written
    std::vector<std::vector<uint32_t>> crcs_;  // of each, of its columns
    std::map<int64_t, std::vector<bool>> checked_;  // block -> which of its columns are
    std::string stopped_, dropped_;
};

}  // namespace lcc
