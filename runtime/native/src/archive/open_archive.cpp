#include "archive/rows.h"
#include "core/error.h"
#include "core/log.h"

namespace lcc {

std::unique_ptr<Archive> open_archive(const Manifest& manifest, const ArchiveOptions& options) {
    const std::string &path = options.path, &dtype = options.dtype;
    if (dtype != "float16" && dtype != "float32" && dtype != "int8") {
        throw config_error("archive dtype is \"" + dtype +
                           "\", wanted one of float16, float32, int8");
    }
    const BlockLayout layout(columns_of(manifest, dtype), ROWS_OF_BLOCK);
    const int64_t least = 2 * manifest.cache.capacity * layout.bytes_per_row();
    if (options.limit < 0 || (options.limit != 0 && options.limit < least)) {
        throw config_error("archive limit is " + std::to_string(options.limit) +
                           " bytes, wanted " + std::to_string(least) +
                           " or more: a recall needs more rows than the cache has");
    }
    auto file = std::make_unique<BlockArchive>(path, manifest.fingerprint, layout, options.limit);
    const int64_t most = file->slots() * ROWS_OF_BLOCK;
    if (most != 0 && most < manifest.cache.capacity) {  // no lcc makes such a file
        throw archive_error(path + ": has room for " + std::to_string(most) + " rows, wanted " +
                            std::to_string(manifest.cache.capacity) +
                            " or more, as many as the cache has; give another path");
    }
    if (!file->dropped().empty()) {
        log_line(LCC_LOG_WARNING, path + ": " + file->dropped());
    }
    return std::make_unique<ArchiveRows>(std::move(file), [](const std::string& message) {
        log_line(LCC_LOG_WARNING, message);
    });
}

}  // namespace lcc
