// Finds and loads the shared libraries of TVM's runtime.
#pragma once

#include <string>

namespace lcc::tvm {

constexpr const char* WANTED = "apache-tvm 0.27 with apache-tvm-ffi 0.1.14 or newer of 0.1";

struct Libraries {
    void* ffi = nullptr;  // has the C interface
    std::string path;     // of it, for messages
};

// `path`: as `Api::load`. Throws Error (target): one of them is not there, or cannot be loaded.
Libraries open_libraries(const std::string& path);

// Cores of this machine, at least 1.
int cores();

}  // namespace lcc::tvm
