// A target for libFuzzer: LCC_FUZZED is its name.

#include "targets.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, size_t size) {
    lcc::fuzz::LCC_FUZZED({reinterpret_cast<const char*>(data), size});
    return 0;
}
