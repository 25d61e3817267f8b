#include "archive/block_archive.h"

#include <algorithm>
#include <cstring>

#include "archive/recovery.h"
#include "core/error.h"
#include "core/log.h"

namespace lcc {

namespace {

// Lets errors name the file; those of the system become errors of the archive.
template <typename Action>
auto naming(const std::string& path, Action action) -> decltype(action()) {
    try {
        return action();
    } catch (const Error& error) {
        throw at(path, error);
    } catch (const SystemRefusal& refusal) {
        throw archive_error(path + ": " + refusal.what());
    }
}

}  // namespace

// The file is opened in the first member, so its errors are named in a function of its own.
BlockArchive::BlockArchive(const std::string& path, const std::string& fingerprint,
                           const BlockLayout& layout, int64_t limit_bytes)
try : path_(path), file_(path, fingerprint, layout, limit_bytes), numbering_({}, file_.start()) {
    const FoundBlocks found = keep_whole(file_);
    const int64_t bytes = file_.bytes();
    numbering_ = Numbering(found.blocks, file_.start());
    cut();
    if (!found.clear.empty() || bytes > file_.bytes()) {
        dropped_ = "blocks that were not whole were dropped; " + numbering_.shown();
    }
} catch (const Error& error) {
    throw at(path, error);
} catch (const SystemRefusal& refusal) {
    throw archive_error(path + ": " + refusal.what());
}

BlockArchive::~BlockArchive() {
    try {
        file_.flush();
    } catch (const SystemRefusal& refusal) {  // the blocks are in the system's memory, whole
        log_line(LCC_LOG_WARNING, path_ + ": " + refusal.what());
    }
}

void BlockArchive::begin(int64_t count) {
    coming_.clear();
    crcs_.clear();
    if (!stopped_.empty()) {
        return;
    }
    std::vector<int64_t> sizes;
    for (int64_t row = 0; row < count; row += layout().rows()) {
        sizes.push_back(std::min(layout().rows(), count - row));
    }
    coming_ = numbering_.next_blocks(sizes);
    crcs_.assign(sizes.size(), std::vector<uint32_t>(layout().columns().size()));
    stopping([&] {
        for (const BlockHeader& block : coming_) {
            if (block.number - numbering_.first() == file_.slots() && file_.slots() != 0) {
                checked_.erase(numbering_.first());
                numbering_.drop_oldest();
            }
            file_.begin(block.number);
        }
    });
}

void BlockArchive::put(size_t index, const void* data) {
    auto rows = static_cast<const char*>(data);
    const size_t bytes = layout().column_bytes(index), row_bytes = layout().row_bytes(index);
    const bool has_rows = layout().columns()[index].has_rows();
    std::vector<char> whole;  // of a block with fewer rows: those that are not in use are zero
    stopping([&] {
        for (size_t i = 0; i < coming_.size(); ++i) {
            const size_t mine = has_rows ? static_cast<size_t>(coming_[i].rows) * row_bytes : bytes;
            const char* from = rows;
            if (mine < bytes) {
                whole.assign(bytes, 0);
                std::memcpy(whole.data(), rows, mine);
                from = whole.data();
            }
            crcs_[i][index] = file_.write(coming_[i].number, index, from);
            rows += mine;
        }
    });
}

void BlockArchive::commit() {
    stopping([&] {
        for (size_t i = 0; i < coming_.size(); ++i) {
            file_.finish(coming_[i], crcs_[i]);
            numbering_.add(coming_[i].rows);
            // Written from memory just now.
            checked_[coming_[i].number].assign(layout().columns().size(), true);
        }
    });
    coming_.clear();
    crcs_.clear();
}

void BlockArchive::stopping(const std::function<void()>& write) {
    try {
        write();
    } catch (const SystemRefusal& refusal) {
        coming_.clear();
        crcs_.clear();
        cut();
        stopped_ = std::string(refusal.what()) + " (wanted " +
                   std::to_string(layout().block_bytes()) + " bytes for block " +
                   std::to_string(numbering_.end()) +
                   "); archiving stops, what was archived before can be read; make room, or set a "
                   "limit, and begin anew";
        throw archive_error(path_ + ": " + stopped_);
    }
}

const char* BlockArchive::column(int64_t block, size_t index) {
    return naming(path_, [&] {
        if (block < numbering_.first() || block >= numbering_.end()) {
            throw archive_error("no block " + std::to_string(block) + "; " + numbering_.shown());
        }
        std::vector<bool>& checked = checked_[block];
        checked.resize(layout().columns().size());
        if (!checked[index]) {
            const std::string wrong = file_.wrong(block, index);
            if (!wrong.empty()) {
                throw archive_error(wrong + "; delete the file and begin anew");
            }
            checked[index] = true;
        }
        return file_.column(file_.slot(block), index);
    });
}

void BlockArchive::truncate(int64_t end) {
    naming(path_, [&] {
        if (end < 0 || end > numbering_.end()) {
            throw archive_error("no block " + std::to_string(end) + "; " + numbering_.shown());
        }
        if (end < numbering_.first()) {
            throw archive_error("block " + std::to_string(end) +
                                " was overwritten by later ones; " + numbering_.shown() +
                                "; clear the archive and read the text again");
        }
        if (end == numbering_.first()) {
            file_.write_start({end, numbering_.lost()});
        }
        drop(end);
    });
}

void BlockArchive::clear() {
    naming(path_, [&] {
        file_.write_start({});
        drop(numbering_.first());
        numbering_ = Numbering({}, {});
        checked_.clear();
        stopped_.clear();
    });
}

// Blocks are cut off first, so that a file holds all of them or none; headers are cleared where
// they remain, in front of the blocks of a full file.
void BlockArchive::drop(int64_t end) {
    const int64_t behind = numbering_.end();
    numbering_.drop_from(end);
    checked_.erase(checked_.lower_bound(end), checked_.end());
    cut();
    for (int64_t number = behind - 1; number >= end; --number) {
        if (file_.slot(number) < file_.held()) {
            file_.clear(file_.slot(number));
        }
    }
}

// Cuts off the slots behind all that are in use.
void BlockArchive::cut() {
    int64_t slots = 0;
    if (numbering_.size() != 0) {
        const int64_t first = file_.slot(numbering_.first());
        const int64_t last = file_.slot(numbering_.end() - 1);
        slots = first <= last ? last + 1 : file_.held();
    }
    file_.cut(slots);
}

}  // namespace lcc
