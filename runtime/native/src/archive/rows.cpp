#include "archive/rows.h"

#include <algorithm>
#include <cstring>

#include "archive/convert.h"
#include "archive/crc32.h"
#include "archive/eight_bits.h"
#include "core/error.h"

namespace lcc {

namespace {

std::string range_name(const std::string& column) { return column + "_range"; }

}  // namespace

std::vector<FileColumn> columns_of(const Manifest& manifest, const std::string& dtype) {
    std::vector<FileColumn> columns;
    for (const Column& spec : manifest.archive) {
        const bool wanted = spec.role == "key" || spec.role == "value";
        FileDtype kind = file_dtype(spec.dtype);
        if (wanted) {
            kind = dtype == "int8"      ? FileDtype::int8
                   : dtype == "float16" ? FileDtype::float16
                                        : FileDtype::float32;
        }
        std::vector<int64_t> shape{FileColumn::ROWS}, range{2};
        shape.insert(shape.end(), spec.shape.begin(), spec.shape.end());
        range.insert(range.end(), spec.shape.begin(), spec.shape.end());
        columns.push_back({spec.name, kind, shape});
        if (kind == FileDtype::int8) {
            columns.push_back({range_name(spec.name), FileDtype::float32, range});
        }
    }
    return columns;
}

ArchiveRows::ArchiveRows(std::unique_ptr<BlockArchive> archive,
                         std::function<void(const std::string&)> said)
    : archive_(std::move(archive)), said_(std::move(said)) {
    for (const FileColumn& column : archive_->layout().columns()) {
        const bool ranged = column.dtype == FileDtype::int8;
        ranges_.push_back(ranged ? archive_->layout().index(range_name(column.name)) : no_range);
    }
}

void ArchiveRows::begin(int64_t count, int64_t held) {
    if (held < length()) {
        truncate(held);
    }
    saying([&] { archive_->begin(count); });
}

void ArchiveRows::put(const std::string& column, const View& rows) {
    const size_t index = index_of(column, rows);
    if (range_of(index) != no_range) {
        put_eight_bits(index, rows);
        return;
    }
    const FileDtype dtype = archive_->layout().columns()[index].dtype;
    const std::vector<char> cast = narrowed(rows, dtype);
    saying([&] { archive_->put(index, cast.empty() ? rows.data : cast.data()); });
}

// The ranges are those of the rows of a block.
void ArchiveRows::put_eight_bits(size_t index, const View& rows) {
    const size_t channels = archive_->layout().row_bytes(index);
    const auto count = static_cast<size_t>(rows.shape[0]);
    std::vector<int8_t> numbers(count * channels);
    std::vector<float> ranges;
    for (size_t row = 0; row < count; row += ROWS_OF_BLOCK) {
        const size_t some = std::min<size_t>(ROWS_OF_BLOCK, count - row);
        ranges.resize(ranges.size() + 2 * channels);
        quantize(rows.as<float>() + row * channels, some, channels, &numbers[row * channels],
                 &ranges[ranges.size() - 2 * channels]);
    }
    saying([&] {
        archive_->put(range_of(index), ranges.data());
        archive_->put(index, numbers.data());
    });
}

int64_t ArchiveRows::commit() {
    saying([&] { archive_->commit(); });
    known_ = true;
    return length();
}

void ArchiveRows::read(const std::string& column, int64_t first, const View& out) {
    const size_t index = index_of(column, out);
    const int64_t count = out.shape[0];
    if (count == 0) {
        return;
    }
    if (first < 0 || count > length() || first > length() - count) {
        throw archive_error(archive_->path() + ": rows " + std::to_string(first) + " .. " +
                            std::to_string(first + count - 1) + " of " + std::to_string(length()));
    }
    auto place = static_cast<char*>(out.data);
    const size_t row_bytes = out.bytes() / static_cast<size_t>(count);
    int64_t block = numbering().block_of(first);
    for (int64_t row = first; row < first + count; ++block) {
        const int64_t in_block = row + numbering().lost() - numbering().first_row(block);
        const int64_t some = std::min(first + count - row, numbering().count(block) - in_block);
        copy(block, index, in_block, some, place);
        place += static_cast<size_t>(some) * row_bytes;
        row += some;
    }
}

void ArchiveRows::take(const std::string& column, const View& rows, const View& out) {
    const size_t index = index_of(column, out);
    const auto count = static_cast<size_t>(rows.shape[0]);
    if (count == 0) {
        return;
    }
    const int64_t* wanted = rows.as<int64_t>();
    std::vector<size_t> order(count);  // block after block, wherever the rows go
    for (size_t i = 0; i < count; ++i) {
        order[i] = i;
        if (wanted[i] < 0 || wanted[i] >= length()) {
            throw archive_error(archive_->path() + ": row " + std::to_string(wanted[i]) + " of " +
                                std::to_string(length()));
        }
    }
    std::sort(order.begin(), order.end(), [&](size_t one, size_t other) {
        return wanted[one] != wanted[other] ? wanted[one] < wanted[other] : one < other;
    });
    const size_t row_bytes = out.bytes() / static_cast<size_t>(out.shape[0]);
    for (size_t i : order) {
        const int64_t block = numbering().block_of(wanted[i]);
        const int64_t row = wanted[i] + numbering().lost() - numbering().first_row(block);
        copy(block, index, row, 1, static_cast<char*>(out.data) + i * row_bytes);
    }
}

void ArchiveRows::copy(int64_t block, size_t index, int64_t row, int64_t count, char* out) {
    const BlockLayout& layout = archive_->layout();
    const size_t row_bytes = layout.row_bytes(index), rows = static_cast<size_t>(count);
    if (range_of(index) == no_range) {
        const char* from = archive_->column(block, index) + static_cast<size_t>(row) * row_bytes;
        widen(from, layout.columns()[index].dtype, rows * row_bytes, out);
        return;
    }
    archive_->column(block, range_of(index));  // both are checked before either is read
    const char* numbers = archive_->column(block, index) + static_cast<size_t>(row) * row_bytes;
    const char* ranges = archive_->column(block, range_of(index));
    restore(reinterpret_cast<const int8_t*>(numbers), rows, row_bytes,
            reinterpret_cast<const float*>(ranges), reinterpret_cast<float*>(out));
}

void ArchiveRows::clear() {
    archive_->clear();
    known_ = false;
}

void ArchiveRows::check_new() {
    if (!known_ && length() != 0) {
        throw archive_error(archive_->path() + " holds " + std::to_string(length()) +
                            " tokens of another text; load the state that was saved with it, "
                            "delete the file, or name another one");
    }
}

std::pair<int64_t, int64_t> ArchiveRows::mark(int64_t held) {
    if (held == 0) {
        return {0, 0};
    }
    const int64_t total = numbering().lost() + held, row = held - 1;
    if (row < 0 || row >= length()) {
        throw archive_error(archive_->path() + ": row " + std::to_string(total - 1) +
                            " is not there, of the " +
                            std::to_string(numbering().lost() + length()) +
                            " that were written; it is not the archive that the state was saved "
                            "with");
    }
    const int64_t block = numbering().block_of(row);
    const auto place =
        static_cast<size_t>(row + numbering().lost() - numbering().first_row(block));
    const BlockLayout& layout = archive_->layout();
    uint32_t check = 0;
    for (size_t i = 0; i < layout.columns().size(); ++i) {
        const size_t bytes = layout.row_bytes(i);
        const size_t skipped = layout.columns()[i].has_rows() ? place * bytes : 0;
        check = crc32(archive_->column(block, i) + skipped, bytes, check);
    }
    return {total, check};
}

int64_t ArchiveRows::go_back(int64_t total, int64_t check) {
    if (total == 0) {  // nothing says whose rows there are
        check_new();
    }
    const int64_t held = total == 0 ? 0 : total - numbering().lost();
    const auto found = mark(held);
    if (found.first != total || found.second != check) {
        throw archive_error(archive_->path() +
                            " is not the archive that the state was saved with; wanted that one");
    }
    known_ = true;
    return held;
}

void ArchiveRows::truncate(int64_t held) {
    int64_t end = numbering().first();
    if (held > 0) {
        end = numbering().block_of(held);
        if (numbering().first_row(end) - numbering().lost() != held) {
            throw archive_error(archive_->path() + ": no block begins with row " +
                                std::to_string(held));
        }
    }
    archive_->truncate(end);
}

// Where the disk refuses, it is said once.
void ArchiveRows::saying(const std::function<void()>& write) {
    try {
        write();
    } catch (const Error& error) {
        said_(error.what());
    }
}

// A column, whose rows are as long as those of the view.
size_t ArchiveRows::index_of(const std::string& column, const View& view) const {
    const size_t index = archive_->layout().index(column);
    const FileColumn& kept = archive_->layout().columns()[index];
    bool fits = kept.has_rows() && view.shape.size() == kept.shape.size();
    for (size_t i = 1; fits && i < view.shape.size(); ++i) {
        fits = view.shape[i] == kept.shape[i];
    }
    if (!fits) {
        throw config_error("the archive's column " + column + " is " + kept.shown() +
                           ", and the buffer's rows have another shape");
    }
    return index;
}

}  // namespace lcc
