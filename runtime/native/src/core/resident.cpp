#include "core/resident.h"

#if defined(__linux__)
#include <malloc.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#endif

namespace lcc {

#if defined(__linux__)

void trim() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

void page_out(const std::string& folder) {
    constexpr int page_out_advice = 21;  // MADV_PAGEOUT, of Linux 5.4 and newer; older ones refuse
    std::error_code none;
    const auto root = std::filesystem::canonical(std::filesystem::u8path(folder), none);
    if (root.empty()) {
        return;
    }
    const std::string inside = " " + root.u8string() + "/";
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        unsigned long long start = 0, end = 0;
        if (line.find(inside) != std::string::npos &&
            std::sscanf(line.c_str(), "%llx-%llx", &start, &end) == 2) {
            madvise(reinterpret_cast<void*>(static_cast<uintptr_t>(start)),
                    static_cast<size_t>(end - start), page_out_advice);
        }
    }
}

#else

void trim() {}

void page_out(const std::string&) {}

#endif

}  // namespace lcc
