#include "core/peak_memory.h"

#include <cstdio>

#if !defined(_WIN32)
#include <sys/resource.h>
#endif

namespace lcc {

int64_t peak_rss_bytes() {
#if defined(_WIN32)
    return -1;
#else
#if defined(__linux__)  // of this program alone; ru_maxrss would begin with the parent's
    if (std::FILE* file = std::fopen("/proc/self/status", "r")) {
        char line[256];
        long long kilobytes = -1;
        while (kilobytes < 0 && std::fgets(line, sizeof line, file) != nullptr) {
            if (std::sscanf(line, "VmHWM: %lld", &kilobytes) != 1) {
                kilobytes = -1;
            }
        }
        std::fclose(file);
        if (kilobytes >= 0) {
            return kilobytes * 1024;
        }
    }
#endif
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        return -1;
    }
#if defined(__APPLE__)
    return usage.ru_maxrss;
#else
    return static_cast<int64_t>(usage.ru_maxrss) * 1024;
#endif
#endif
}

}  // namespace lcc
