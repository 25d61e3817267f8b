// What the interpreter and the executor ask of an archive: rows of columns, behind one another.
//
// docs/format.md ("What runs do with an archive", "Archive") says what they mean; the Python
// runtime's archive/rows.py does the same.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "artifact/manifest.h"
#include "core/tensor.h"

namespace lcc {

class Archive {
public:
    virtual ~Archive() = default;

    // So many rows follow behind the first `held`, column by column; rows behind those are dropped.
    virtual void begin(int64_t count, int64_t held) = 0;
    // The rows of one column; the first axis of the view is that of rows.
    virtual void put(const std::string& column, const View& rows) = 0;
    // All columns are there; returns how many rows there are now. Where the disk refuses, nothing
    // is appended from now on, and `stopped` says why.
    virtual int64_t commit() = 0;

    // Copies rows from `first` on, as many as `out` has.
    virtual void read(const std::string& column, int64_t first, const View& out) = 0;
    // Copies the rows that `rows` (int64) lists.
    virtual void take(const std::string& column, const View& rows, const View& out) = 0;

    // Why appending has stopped; "" = it goes on.
    virtual std::string stopped() const = 0;
    virtual int64_t file_bytes() const = 0;

    // Drops all rows: the text is forgotten.
    virtual void clear() = 0;
    // Throws Error (archive) where there are rows of another text.
    virtual void check_new() = 0;
    // Whether the rows that are there belong to the text of this session.
    virtual bool known() const = 0;

    // For a saved state: how many rows belong to the text (those overwritten included), and the
    // crc32 of the last of them; `archived`: rows of the text.
    virtual std::pair<int64_t, int64_t> mark(int64_t archived) = 0;
    // Goes back to a mark; returns `archived`. Throws Error (archive) where it is another archive.
    virtual int64_t go_back(int64_t total, int64_t check) = 0;
};

struct ArchiveOptions {
    std::string path;
    std::string dtype = "float16";  // of keys and values in a new file
    int64_t limit = 0;              // most bytes; 0 = any
};

// Opens the archive of an artifact. Throws Error (archive), or Error (unsupported).
std::unique_ptr<Archive> open_archive(const Manifest& manifest, const ArchiveOptions& options);

}  // namespace lcc
