// An archive: as it is, and with its checksums made anew, as an attacker would.

#include <limits>

#include "archive/crc32.h"
#include "archive/headers.h"
#include "archive/layout.h"
#include "archive/rows.h"
#include "core/archive.h"
#include "core/error.h"
#include "core/tensor.h"
#include "targets.h"

namespace lcc::fuzz {

namespace {

// Rows of few bytes, those of docs/measure/native_corpus.py.
Manifest small_manifest() {
    Manifest manifest;
    manifest.fingerprint = std::string(64, 'f');
    manifest.cache.capacity = 256;
    manifest.archive = {{"key_0", "key", Dtype::float32, {2, 5}, 0},
                        {"value_0", "value", Dtype::float32, {2, 5}, 0},
                        {"position", "token_position", Dtype::int64, {}, {}},
                        {"score", "entry_score", Dtype::float32, {}, {}}};
    return manifest;
}

uint32_t crc_of(const std::string& data, size_t begin, size_t end) {
    return crc32(data.data() + begin, end - begin);
}

std::string mended(std::string data, const BlockLayout& layout) {
    if (data.size() < static_cast<size_t>(BLOCK_PAGE)) {
        return data;
    }
    const size_t page = std::min<size_t>(BLOCK_PAGE - PAGE_AT,
                                         static_cast<unsigned char>(data[12]) +
                                             256u * static_cast<unsigned char>(data[13]));
    put_number(data, 16, crc_of(data, PAGE_AT, PAGE_AT + page), 4);
    put_number(data, 40, crc_of(data, START_AT, 40), 4);
    const auto block = static_cast<size_t>(layout.block_bytes());
    for (size_t begin = BLOCK_PAGE; begin + block <= data.size(); begin += block) {
        for (size_t i = 0; i < layout.columns().size(); ++i) {
            const size_t column = begin + static_cast<size_t>(layout.offset(i));
            put_number(data, begin + 32 + 4 * i,
                       crc_of(data, column, column + layout.column_bytes(i)), 4);
        }
        const size_t end = begin + static_cast<size_t>(layout.header_bytes());
        put_number(data, begin + 8, crc_of(data, begin + 12, end), 4);
    }
    return data;
}

Tensor rows_of(const Column& column, int64_t count) {
    std::vector<int64_t> shape{count};
    shape.insert(shape.end(), column.shape.begin(), column.shape.end());
    return Tensor(column.dtype, shape);
}

void append(Archive& archive, const Manifest& manifest, int64_t count, int64_t held) {
    archive.begin(count, held);
    for (const Column& column : manifest.archive) {
        archive.put(column.name, rows_of(column, count).view());
    }
    archive.commit();
}

int64_t length(Archive& archive) {
    archive.begin(0, std::numeric_limits<int64_t>::max());
    return archive.commit();
}

void use(Archive& archive, const Manifest& manifest) {
    const int64_t count = length(archive);
    const int64_t some = std::min<int64_t>(count, 300);
    const Tensor chosen(Dtype::int64, {some});
    for (int64_t i = 0; i < some; ++i) {
        chosen.as<int64_t>()[i] = (i * 37) % count;
    }
    for (const Column& column : manifest.archive) {
        const Tensor rows = rows_of(column, some);
        archive.read(column.name, count - some, rows.view());
        archive.take(column.name, chosen.view(), rows.view());
    }
    const auto [total, check] = archive.mark(count);
    append(archive, manifest, 130, count);
    append(archive, manifest, 3, archive.go_back(total, check));
    archive.clear();
    append(archive, manifest, 5, 0);
}

std::string open(const Manifest& manifest, const std::string& dtype, const std::string& data) {
    const ScratchFile file("archive", data);
    try {
        use(*open_archive(manifest, {file.path(), dtype, 0}), manifest);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

}  // namespace

std::string archive(std::string_view data) {
    static const Manifest manifest = small_manifest();
    std::string first;
    for (const char* dtype : {"float16", "int8"}) {
        const BlockLayout layout(columns_of(manifest, dtype), ROWS_OF_BLOCK);
        std::string refused = open(manifest, dtype, std::string(data));
        if (!refused.empty()) {
            refused = open(manifest, dtype, mended(std::string(data), layout));
        }
        if (refused.empty()) {
            return "";
        }
        first = first.empty() ? refused : first;
    }
    return first;
}

}  // namespace lcc::fuzz
