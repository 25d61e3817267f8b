// The files of an artifact, checked before an engine sees them.
#pragma once

#include <array>
#include <map>
#include <string>

#include "artifact/manifest.h"

namespace lcc {

// Every file of the manifest is there, inside the folder, of its size and, with `hashes`, of its
// sha256. Throws Error (artifact) that names the first one that is not as it was written. Returns
// what the files were when they were read.
using Stamp = std::array<int64_t, 5>;
using Stamps = std::map<std::string, Stamp>;  // by path
Stamps verify_files(const std::string& folder, const Manifest& manifest, bool hashes);

// The bytes of a file, read once and compared with what the manifest says of it. Throws Error
// (artifact): it is not listed, or not as it was written.
std::string read_listed(const std::string& folder, const Manifest& manifest,
                        const std::string& name);

// Throws Error (artifact) where one of them was replaced or written to since. To be called when all
// programs are loaded: engines open files by their path once more.
void check_unchanged(const Stamps& stamps);

}  // namespace lcc
