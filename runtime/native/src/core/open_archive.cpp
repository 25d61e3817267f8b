#include "core/archive.h"
#include "core/error.h"

namespace lcc {

std::unique_ptr<Archive> open_archive(const Manifest&, const ArchiveOptions& options) {
    throw unsupported(options.path +
                      ": archives are not supported by this build of lcc's native runtime; leave "
                      "the archive out, or use the Python runtime");
}

}  // namespace lcc
