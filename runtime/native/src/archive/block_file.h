// An archive's file as slots: a block written, cleared or mapped. Numbers no blocks itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "archive/headers.h"
#include "archive/locked_file.h"

namespace lcc {

class BlockFile {
public:
    // Opens an archive's file, or makes one, and locks it. `limit_bytes`: most bytes of the file;
    // 0 = as the file was made, a new one without a limit.
    //
    // Throws Error (archive): another session has it open, it is damaged, or of other rows than
    // these; Error (config): no room for two blocks; SystemRefusal.
    BlockFile(const std::string& path, const std::string& fingerprint, const BlockLayout& layout,
              int64_t limit_bytes);

    const BlockLayout& layout() const { return layout_; }
    const BlockStart& start() const { return start_; }
    int64_t slots() const { return slots_; }  // most; 0 = no limit
    int64_t bytes() const { return file_.size(); }

    // Slots that the file holds wholly, no more than it may.
    int64_t held() const;
    // Where the block of this number lies.
    int64_t slot(int64_t number) const { return slots_ == 0 ? number : number % slots_; }

    // The block header in a slot.
    std::string read_header(int64_t slot) const;
    // Makes the slot hold no block.
    void clear(int64_t slot);
    // Sets the numbers of the next block and row for when the file holds no block.
    void write_start(const BlockStart& start);

    // Makes room for a block, which counts as none until `finish`.
    void begin(int64_t number);
    // Writes a column of a block, all of its bytes; returns its crc32.
    uint32_t write(int64_t number, size_t index, const void* data);
    // Writes the header of a block, whose columns are all there.
    void finish(const BlockHeader& block, const std::vector<uint32_t>& crcs);
    // Gives the space behind so many slots back to the disk.
    void cut(int64_t slots);

    // A column's array where it lies in the file. The block stays mapped until another one is: a
    // scan holds the memory of one block.
    const char* column(int64_t slot, size_t index);

    // What is wrong with a column of a block, compared with the block's header; "" = nothing.
    std::string wrong(int64_t number, size_t index);
    bool any_wrong(int64_t number);

    void flush() { file_.flush(); }

private:
    void make(const FilePage& page);
    // Bytes of a file with this many slots: where the next one begins.
    int64_t size(int64_t slots) const { return header_bytes_ + slots * layout_.block_bytes(); }

    const BlockLayout layout_;
    LockedFile file_;
    BlockStart start_;
    int64_t header_bytes_ = 0, slots_ = 0;
    FileMap map_;
    int64_t mapped_slot_ = -1;
    int64_t ahead_ = 0;  // bytes of the map in front of the block
};

}  // namespace lcc
