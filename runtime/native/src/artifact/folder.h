// The files of an artifact, checked before an engine sees them.
#pragma once

#include <string>

#include "artifact/manifest.h"

namespace lcc {

// Every file of the manifest is there, inside the folder, of its size and, with `hashes`, of its
// sha256. Throws Error (artifact) that names the first one that is not as it was written.
void verify_files(const std::string& folder, const Manifest& manifest, bool hashes);

}  // namespace lcc
