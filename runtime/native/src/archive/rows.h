// An archive as a session sees it: one long table of rows, whatever blocks they lie in.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "archive/block_archive.h"
#include "core/archive.h"

namespace lcc {

constexpr int64_t ROWS_OF_BLOCK = 128;  // what an append that is not full wastes, at most

// Columns of the file of an artifact's archive; dtype: of keys and values.
std::vector<FileColumn> columns_of(const Manifest& manifest, const std::string& dtype);

// Rows behind one another; keys and values in the dtype that the file has for them.
class ArchiveRows : public Archive {
public:
    // `said` gets one line where the disk refuses: the session goes on without its archive.
    ArchiveRows(std::unique_ptr<BlockArchive> archive,
                std::function<void(const std::string&)> said);

    void begin(int64_t count, int64_t held) override;
    void put(const std::string& column, const View& rows) override;
    int64_t commit() override;
    void read(const std::string& column, int64_t first, const View& out) override;
    void take(const std::string& column, const View& rows, const View& out) override;
    std::string stopped() const override { return archive_->stopped(); }
    int64_t file_bytes() const override { return archive_->file_bytes(); }
    void clear() override;
    void check_new() override;
    bool known() const override { return known_; }
    std::pair<int64_t, int64_t> mark(int64_t held) override;
    int64_t go_back(int64_t total, int64_t check) override;

private:
    const Numbering& numbering() const { return archive_->numbering(); }
    int64_t length() const { return numbering().length(); }
    // The column of ranges behind a column of 8 bits; no_range = it has none.
    static constexpr size_t no_range = ~size_t{0};
    size_t range_of(size_t index) const { return ranges_[index]; }
    void put_eight_bits(size_t index, const View& rows);
    // Rows of a block, in the dtype of the buffers, to a place.
    void copy(int64_t block, size_t index, int64_t row, int64_t count, char* out);
    void truncate(int64_t held);
    void saying(const std::function<void()>& write);
    size_t index_of(const std::string& column, const View& view) const;

    std::unique_ptr<BlockArchive> archive_;
    std::function<void(const std::string&)> said_;
    std::vector<size_t> ranges_;
    // The session has written the rows, or its state names them; otherwise they are another text's.
    bool known_ = false;
};

}  // namespace lcc
