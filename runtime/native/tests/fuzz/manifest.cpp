// manifest.json, and the schedule that it describes.

#include "core/error.h"
#include "fake_session.h"

namespace lcc::fuzz {

namespace {

constexpr int64_t MOST = 1 << 12, MOST_BYTES = 1 << 22;

// A manifest may ask for any memory that there is; a fuzzer has little.
bool is_small(const Manifest& manifest) {
    for (const Numbers* numbers : {&manifest.constants, &manifest.counters}) {
        for (const auto& each : *numbers) {
            if (each.second > MOST) {
                return false;
            }
        }
    }
    int64_t total = 0;
    for (const BufferSpec& spec : manifest.buffers) {
        int64_t bytes = 8;
        for (const Size& size : spec.shape) {
            const auto constant = manifest.constants.find(size.name);
            bytes *= !size.named() ? size.number
                     : constant == manifest.constants.end() ? 1
                                                            : constant->second;
        }
        total += bytes;
        if (total > MOST_BYTES) {
            return false;
        }
    }
    for (const Column& column : manifest.archive) {
        int64_t bytes = 8;
        for (int64_t size : column.shape) {
            bytes *= size;
            if (bytes > MOST_BYTES) {
                return false;
            }
        }
    }
    return manifest.vocab_size <= MOST_BYTES;
}

}  // namespace

std::string manifest(std::string_view data) {
    try {
        const Manifest whole = parse_manifest(std::string(data));
        for (const std::string& target : whole.targets()) {
            Manifest own = whole.for_target(target);
            if (!is_small(own)) {
                continue;
            }
            SessionOptions options;
            const ScratchFile archive("new-archive", "");
            if (!own.archive.empty()) {
                options.archive = ArchiveOptions{archive.path(), "float32", 0};
            }
            Session session(model_of(std::move(own)), options);
            use(session);
        }
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

}  // namespace lcc::fuzz
