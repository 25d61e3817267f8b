// Shared libraries that are loaded while the program runs.
#pragma once

#include <string>

namespace lcc {

// nullptr = it cannot be loaded, and `library_error` says why.
// `shared`: libraries that are loaded later find its symbols.
void* open_library(const std::string& path, bool shared = false);
void* library_symbol(void* library, const char* name);
std::string library_error();

}  // namespace lcc
