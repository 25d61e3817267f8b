// Lines for the log that lcc_set_log has set.
#pragma once

#include <cstdint>
#include <string>

namespace lcc {

// Levels are those of lcc.h; defined where the log is set.
void log_line(int32_t level, const std::string& message) noexcept;

}  // namespace lcc
