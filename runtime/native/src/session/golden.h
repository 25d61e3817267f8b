// golden.json: a short transcript that every runtime reproduces.
#pragma once

#include <string>

#include "artifact/manifest.h"
#include "engines/engine.h"

namespace lcc {

// Reads what golden.json of the folder says and compares. Throws Error (golden) that names the first
// number that differs, Error (artifact) where the file is not what docs/format.md describes.
void check_golden(const std::string& folder, const Manifest& manifest, Engine& engine);

}  // namespace lcc
