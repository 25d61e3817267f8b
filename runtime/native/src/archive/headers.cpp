#include "archive/headers.h"

#include "archive/crc32.h"
#include "artifact/fields.h"
#include "core/error.h"

namespace lcc {

namespace {

constexpr uint64_t VERSION = 1;
constexpr uint64_t LARGEST_PAGE = uint64_t{1} << 20;  // bytes; 1,000 layers need a fifth
constexpr size_t CRC_AT = 8, CHECKED_FROM = 12, CRCS_AT = 32;
const char FILE_MAGIC[] = "lcc-rows", BLOCK_MAGIC[] = "lcc-blok";
const char ANEW[] = "; delete it and begin anew";

// A whole number of `size` bytes, lowest byte first.
std::string bytes_of(uint64_t value, int size) {
    std::string bytes;
    for (int i = 0; i < size; ++i) {
        bytes += static_cast<char>(value >> 8 * i & 0xFF);
    }
    return bytes;
}

uint64_t number_at(const std::string& bytes, size_t place, int size) {
    uint64_t value = 0;
    for (int i = size - 1; i >= 0; --i) {
        value = value << 8 | static_cast<unsigned char>(bytes[place + static_cast<size_t>(i)]);
    }
    return value;
}

uint32_t crc_of(const std::string& bytes, size_t from = 0) {
    return crc32(bytes.data() + from, bytes.size() - from);
}

FileColumn read_file_column(const Json& json, const std::string& where) {
    const Fields fields(json, where, {"dtype", "name", "shape"});
    FileColumn column;
    column.name = fields.text("name");
    const std::string dtype = fields.text("dtype");
    bool known = false;
    for (FileDtype each : {FileDtype::float32, FileDtype::float16, FileDtype::int8,
                           FileDtype::int32, FileDtype::int64}) {
        if (dtype == name_of(each)) {
            column.dtype = each;
            known = true;
        }
    }
    if (!known) {
        throw artifact_error(where + ": unknown dtype " + dtype);
    }
    for (const Json& size : fields.get("shape").items(where + ": shape")) {
        const bool rows = size.is(Json::Kind::text);
        if (rows && size.text(where) != "rows") {
            throw artifact_error(where + ": unknown size " + size.text(where));
        }
        column.shape.push_back(rows ? FileColumn::ROWS : size.integer(where));
        if (!rows && column.shape.back() < 1) {
            throw artifact_error(where + ": a size below 1");
        }
    }
    return column;
}

std::string page_text(const FilePage& page) {
    Json::List columns;
    for (const FileColumn& column : page.columns) {
        Json::List shape;
        for (int64_t size : column.shape) {
            shape.push_back(size == FileColumn::ROWS ? Json::of("rows") : Json::of(size));
        }
        columns.push_back(Json::object({{"dtype", Json::of(name_of(column.dtype))},
                                        {"name", Json::of(column.name)},
                                        {"shape", Json::list(std::move(shape))}}));
    }
    Json::Object fields = {{"columns", Json::list(std::move(columns))},
                           {"fingerprint", Json::of(page.fingerprint)},
                           {"rows", Json::of(page.rows)}};
    if (page.slots != 0) {
        fields.emplace("slots", Json::of(page.slots));
    }
    return Json::object(std::move(fields)).line();
}

}  // namespace

std::string encode_file_header(const FilePage& page) {
    const std::string text = page_text(page);
    std::string header = FILE_MAGIC + bytes_of(VERSION, 4) + bytes_of(text.size(), 4) +
                         bytes_of(crc_of(text), 4);
    header.resize(START_AT);
    header += encode_start({});
    header.resize(PAGE_AT);
    header += text;
    header.resize(static_cast<size_t>(padded(static_cast<int64_t>(header.size()), BLOCK_PAGE)));
    return header;
}

int64_t page_bytes(const std::string& start) {
    const std::string magic = FILE_MAGIC;
    if (start.substr(0, 8) != magic.substr(0, start.size())) {
        throw archive_error("not an archive; give the path of one, or of a new file");
    }
    if (start.size() < PAGE_AT) {
        throw archive_error("ends in its header, at byte " + std::to_string(start.size()) + ANEW);
    }
    const uint64_t version = number_at(start, 8, 4), length = number_at(start, 12, 4);
    if (version != VERSION) {
        throw archive_error("version " + std::to_string(version) + ", this lcc reads version " +
                            std::to_string(VERSION) + ANEW);
    }
    if (length > LARGEST_PAGE) {
        throw archive_error("header of " + std::to_string(length) + " bytes, at most " +
                            std::to_string(LARGEST_PAGE) + " are read" + ANEW);
    }
    return static_cast<int64_t>(length);
}

FilePage decode_page(const std::string& start, const std::string& text) {
    const uint64_t length = number_at(start, 12, 4);
    if (text.size() < length) {
        throw archive_error("ends in its header (" + std::to_string(PAGE_AT + text.size()) +
                            " bytes of " + std::to_string(PAGE_AT + length) + ")" + ANEW);
    }
    try {
        if (crc_of(text) != number_at(start, 16, 4)) {
            throw artifact_error("crc32 differs");
        }
        const Json json = Json::parse(text);
        const Fields fields(json, "page", {"columns", "fingerprint", "rows", "slots"});
        FilePage page;
        page.fingerprint = fields.text("fingerprint");
        page.columns = fields.list<FileColumn>("columns", read_file_column);
        page.rows = fields.integer("rows");
        page.slots = fields.integer("slots", 0);
        const bool limited = fields.has("slots");
        if (page.rows < 1 || (limited && (page.slots < 2 || page.slots >= LARGEST_NUMBER))) {
            throw artifact_error("rows or slots cannot be");
        }
        if (page_text(page) != text) {
            throw artifact_error("written by no lcc");
        }
        return page;
    } catch (const Error& error) {
        throw archive_error(std::string("header is damaged (") + error.what() + ")" + ANEW);
    }
}

std::string encode_start(const BlockStart& start) {
    const std::string numbers = bytes_of(static_cast<uint64_t>(start.number), 8) +
                                bytes_of(static_cast<uint64_t>(start.row), 8);
    return numbers + bytes_of(crc_of(numbers), 4);
}

BlockStart decode_start(const std::string& start) {
    const uint64_t number = number_at(start, START_AT, 8), row = number_at(start, START_AT + 8, 8);
    const bool bounded = number <= LARGEST_NUMBER && row <= LARGEST_NUMBER;
    const BlockStart found{static_cast<int64_t>(number), static_cast<int64_t>(row)};
    if (!bounded || encode_start(found) != start.substr(START_AT, 20)) {
        throw archive_error(std::string("header is damaged (first block)") + ANEW);
    }
    return found;
}

std::string encode_block_header(const BlockLayout& layout, const BlockHeader& block,
                                const std::vector<uint32_t>& crcs) {
    std::string rest = bytes_of(static_cast<uint64_t>(block.rows), 4) +
                       bytes_of(static_cast<uint64_t>(block.number), 8) +
                       bytes_of(static_cast<uint64_t>(block.first_row), 8);
    for (uint32_t crc : crcs) {
        rest += bytes_of(crc, 4);
    }
    rest.resize(static_cast<size_t>(layout.header_bytes()) - CHECKED_FROM);
    return BLOCK_MAGIC + bytes_of(crc_of(rest), 4) + rest;
}

std::optional<BlockHeader> decode_block_header(const BlockLayout& layout,
                                               const std::string& header) {
    if (static_cast<int64_t>(header.size()) < layout.header_bytes() ||
        header.compare(0, 8, BLOCK_MAGIC) != 0 ||
        crc_of(header, CHECKED_FROM) != number_at(header, CRC_AT, 4)) {
        return std::nullopt;
    }
    const auto rows = static_cast<int64_t>(number_at(header, 12, 4));
    const uint64_t number = number_at(header, 16, 8), first_row = number_at(header, 24, 8);
    // Divided, as the product might be too large for 64 bits.
    const auto most = static_cast<uint64_t>(layout.rows());
    const auto largest = static_cast<uint64_t>(LARGEST_NUMBER);
    if (rows < 1 || rows > layout.rows() || number >= largest || first_row > largest ||
        (first_row + most - 1) / most > number) {
        return std::nullopt;
    }
    return BlockHeader{static_cast<int64_t>(number), static_cast<int64_t>(first_row), rows};
}

uint32_t crc_of_column(const std::string& header, size_t index) {
    return static_cast<uint32_t>(number_at(header, CRCS_AT + 4 * index, 4));
}

}  // namespace lcc
