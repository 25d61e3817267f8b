#include "archive/block_file.h"

#include <algorithm>
#include <map>
#include <utility>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#include "archive/crc32.h"
#include "core/error.h"

namespace lcc {

namespace {

// What an offset of a map is a multiple of.
int64_t map_granularity() {
#if defined(_WIN32)
    return 65536;
#else
    return ::sysconf(_SC_PAGESIZE);
#endif
}

// Blocks that fit the limit; 0 = there is none.
int64_t slots_of(const std::string& fingerprint, const BlockLayout& layout, int64_t limit_bytes) {
    if (limit_bytes == 0) {
        return 0;
    }
    const FilePage page{fingerprint, layout.columns(), layout.rows(), limit_bytes};
    const auto header = static_cast<int64_t>(encode_file_header(page).size());
    const int64_t slots = (limit_bytes - header) / layout.block_bytes();
    if (slots < 2) {
        throw config_error("the archive's limit is " + std::to_string(limit_bytes) +
                           " bytes; wanted at least " +
                           std::to_string(header + 2 * layout.block_bytes()) + ": a header of " +
                           std::to_string(header) + " bytes and two blocks of " +
                           std::to_string(layout.block_bytes()));
    }
    return slots;
}

// Refuses columns that are not those wanted, and names one that differs.
void check_columns(const FilePage& page, const FilePage& wanted) {
    if (page.columns == wanted.columns) {
        return;
    }
    std::map<std::string, std::pair<const FileColumn*, const FileColumn*>> both;
    for (const FileColumn& column : page.columns) {
        both[column.name].first = &column;
    }
    for (const FileColumn& column : wanted.columns) {
        both[column.name].second = &column;
    }
    for (const auto& [name, pair] : both) {
        const auto& [found, mine] = pair;
        if (found != nullptr && mine != nullptr && *found == *mine) {
            continue;
        }
        if (found != nullptr && mine != nullptr && found->shape == mine->shape) {
            throw archive_error("keeps " + name + " in " + name_of(found->dtype) + ", wanted " +
                                name_of(mine->dtype) +
                                "; open it with the dtype that it was made with (--archive-dtype), "
                                "or give another path");
        }
        throw archive_error("of other columns (" + name + ": " +
                            (found == nullptr ? "none" : found->shown()) + ", wanted " +
                            (mine == nullptr ? "none" : mine->shown()) +
                            "); give another path, or delete it");
    }
    throw archive_error("of columns in another order; give another path, or delete it");
}

// Refuses a file of other rows than those wanted.
void check(const FilePage& page, const FilePage& wanted) {
    if (page.fingerprint != wanted.fingerprint) {
        throw archive_error("of another artifact (fingerprint " + page.fingerprint.substr(0, 12) +
                            ", this one has " + wanted.fingerprint.substr(0, 12) +
                            "); give another path, or delete it");
    }
    check_columns(page, wanted);
    if (page.rows != wanted.rows) {
        throw archive_error("of blocks of " + std::to_string(page.rows) + " rows, wanted " +
                            std::to_string(wanted.rows) + "; give another path, or delete it");
    }
    if (wanted.slots != 0 && page.slots != wanted.slots) {
        throw archive_error("made with " +
                            (page.slots == 0 ? "no limit"
                                             : "a limit of " + std::to_string(page.slots) +
                                                   " blocks") +
                            ", wanted " + std::to_string(wanted.slots) +
                            " blocks; leave the limit away, or delete it");
    }
}

}  // namespace

BlockFile::BlockFile(const std::string& path, const std::string& fingerprint,
                     const BlockLayout& layout, int64_t limit_bytes)
    : layout_(layout), file_(path) {
    const FilePage wanted{fingerprint, layout.columns(), layout.rows(),
                          slots_of(fingerprint, layout, limit_bytes)};
    if (file_.size() == 0) {
        make(wanted);
    }
    const std::string start = file_.read(0, PAGE_AT);
    const std::string text = file_.read(PAGE_AT, static_cast<size_t>(page_bytes(start)));
    const FilePage page = decode_page(start, text);
    check(page, wanted);
    start_ = decode_start(start);
    header_bytes_ = static_cast<int64_t>(encode_file_header(page).size());
    if (file_.size() < header_bytes_) {
        throw archive_error("ends in its header (" + std::to_string(file_.size()) + " bytes of " +
                            std::to_string(header_bytes_) + "); delete it and begin anew");
    }
    slots_ = page.slots;
    // Without a limit, block 0 stays: there are no other numbers to begin with.
    if ((slots_ == 0 && start_.number != 0) || slots_ > LARGEST_NUMBER / layout_.block_bytes()) {
        throw archive_error("header is damaged (numbers); delete it and begin anew");
    }
}

// Writes the header of a new file; after an error the file is empty again.
void BlockFile::make(const FilePage& page) {
    const std::string header = encode_file_header(page);
    try {
        file_.write(0, header.data(), header.size());
    } catch (const SystemRefusal&) {
        try {
            file_.truncate(0);
        } catch (const SystemRefusal&) {
        }
        throw;
    }
}

int64_t BlockFile::held() const {
    const int64_t held = std::max<int64_t>(0, file_.size() - header_bytes_) / layout_.block_bytes();
    return slots_ == 0 ? held : std::min(held, slots_);
}

std::string BlockFile::read_header(int64_t slot) const {
    return file_.read(size(slot), static_cast<size_t>(layout_.header_bytes()));
}

void BlockFile::clear(int64_t slot) {
    const std::string zeros(static_cast<size_t>(layout_.header_bytes()), '\0');
    file_.write(size(slot), zeros.data(), zeros.size());
}

void BlockFile::write_start(const BlockStart& start) {
    start_ = start;
    const std::string bytes = encode_start(start);
    file_.write(START_AT, bytes.data(), bytes.size());
}

void BlockFile::begin(int64_t number) {
    const int64_t place = slot(number), now = file_.size();
    if (now > size(place)) {
        clear(place);
    }
    if (now < size(place + 1)) {
        file_.truncate(size(place + 1));
    }
}

uint32_t BlockFile::write(int64_t number, size_t index, const void* data) {
    const size_t bytes = layout_.column_bytes(index);
    file_.write(size(slot(number)) + layout_.offset(index), data, bytes);
    return crc32(data, bytes);
}

void BlockFile::finish(const BlockHeader& block, const std::vector<uint32_t>& crcs) {
    const std::string header = encode_block_header(layout_, block, crcs);
    file_.write(size(slot(block.number)), header.data(), header.size());
}

void BlockFile::cut(int64_t slots) {
    map_.drop();
    mapped_slot_ = -1;
    if (file_.size() > size(slots)) {
        try {
            file_.truncate(size(slots));
        } catch (const SystemRefusal&) {  // the space stays: headers behind it are cleared
        }
    }
}

const char* BlockFile::column(int64_t slot, size_t index) {
    if (slot != mapped_slot_ || map_.empty()) {
        const int64_t begin = size(slot);
        map_.drop();
        mapped_slot_ = -1;
        ahead_ = begin % map_granularity();
        map_ = file_.map(begin - ahead_, static_cast<size_t>(ahead_ + layout_.block_bytes()));
        mapped_slot_ = slot;
    }
    return map_.data() + ahead_ + layout_.offset(index);
}

std::string BlockFile::wrong(int64_t number, size_t index) {
    const std::string header = read_header(slot(number));
    const std::optional<BlockHeader> block = decode_block_header(layout_, header);
    if (!block || block->number != number) {
        return "header of block " + std::to_string(number) + " is damaged";
    }
    const uint32_t got = crc32(column(slot(number), index), layout_.column_bytes(index));
    const uint32_t wanted = crc_of_column(header, index);
    if (got == wanted) {
        return "";
    }
    char sums[64];
    std::snprintf(sums, sizeof sums, "crc32 %08x, not %08x", got, wanted);
    return "block " + std::to_string(number) + ", column " + layout_.columns()[index].name +
           " is damaged (" + sums + ")";
}

bool BlockFile::any_wrong(int64_t number) {
    for (size_t i = 0; i < layout_.columns().size(); ++i) {
        if (!wrong(number, i).empty()) {
            return true;
        }
    }
    return false;
}

}  // namespace lcc
