#include "engines/library.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace lcc {

#if defined(_WIN32)

void* open_library(const std::string& path, bool) {
    return reinterpret_cast<void*>(LoadLibraryA(path.c_str()));
}

void* library_symbol(void* library, const char* name) {
    return reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(library), name));
}

std::string library_error() { return "error " + std::to_string(GetLastError()); }

#else

void* open_library(const std::string& path, bool shared) {
    return dlopen(path.c_str(), RTLD_NOW | (shared ? RTLD_GLOBAL : RTLD_LOCAL));
}

void* library_symbol(void* library, const char* name) { return dlsym(library, name); }

std::string library_error() {
    const char* text = dlerror();
    return text == nullptr ? "unknown" : text;
}

#endif

}  // namespace lcc
