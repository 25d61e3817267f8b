// The log of the process: lines go where lcc_set_log says.
#pragma once

#include <cstdint>
#include <string>

#include "lcc.h"

namespace lcc {

// Lines of this level and above go to a function; nullptr = nowhere.
void set_log(lcc_log_fn log, void* user, int32_t level);

void log_line(int32_t level, const std::string& message) noexcept;

}  // namespace lcc
