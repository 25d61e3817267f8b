#include "archive/layout.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace lcc {

namespace {

constexpr int64_t COLUMN_ALIGNMENT = 64;  // what engines ask of memory that they are given

}  // namespace

size_t width(FileDtype dtype) {
    switch (dtype) {
        case FileDtype::int8: return 1;
        case FileDtype::float16: return 2;
        case FileDtype::int64: return 8;
        default: return 4;
    }
}

const char* name_of(FileDtype dtype) {
    static const char* const names[] = {"float32", "float16", "int8", "int32", "int64"};
    return names[static_cast<int>(dtype)];
}

bool FileColumn::has_rows() const {
    return std::find(shape.begin(), shape.end(), ROWS) != shape.end();
}

bool FileColumn::operator==(const FileColumn& other) const {
    return name == other.name && dtype == other.dtype && shape == other.shape;
}

std::string FileColumn::shown() const {
    std::string text;
    for (int64_t size : shape) {
        text += text.empty() ? "" : ", ";
        text += size == ROWS ? "\"rows\"" : std::to_string(size);
    }
    return std::string(name_of(dtype)) + " [" + text + "]";
}

BlockLayout::BlockLayout(std::vector<FileColumn> columns, int64_t rows)
    : columns_(std::move(columns)), rows_(rows) {
    header_bytes_ = padded(32 + 4 * static_cast<int64_t>(columns_.size()), COLUMN_ALIGNMENT);
    int64_t place = header_bytes_;
    for (size_t i = 0; i < columns_.size(); ++i) {
        size_t bytes = width(columns_[i].dtype);
        for (int64_t size : columns_[i].shape) {
            bytes *= size == FileColumn::ROWS ? 1 : static_cast<size_t>(size);
        }
        row_bytes_.push_back(bytes);
        offsets_.push_back(place);
        place = padded(place + static_cast<int64_t>(column_bytes(i)), COLUMN_ALIGNMENT);
    }
    block_bytes_ = padded(place, BLOCK_PAGE);
}

size_t BlockLayout::index(const std::string& name) const {
    for (size_t i = 0; i < columns_.size(); ++i) {
        if (columns_[i].name == name) {
            return i;
        }
    }
    throw config_error("the archive has no column " + name);
}

size_t BlockLayout::column_bytes(size_t index) const {
    return row_bytes_[index] * (columns_[index].has_rows() ? static_cast<size_t>(rows_) : 1);
}

}  // namespace lcc
