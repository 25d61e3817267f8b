// Levels of CPUs that compiled code may need, as in the Python package's artifact/cpu.py.
#pragma once

#include <string>

namespace lcc {

// What this machine lacks of a level, in words; "" = code for it runs here. "" as a level: any CPU.
std::string lacking(const std::string& level);

}  // namespace lcc
