// How much memory the process has taken.
#pragma once

#include <cstdint>

namespace lcc {

// The most resident memory that this process ever had; -1 where the system does not say.
int64_t peak_rss_bytes();

}  // namespace lcc
