// What this CPU can do, where the options of an engine depend on it.
#pragma once

namespace lcc {

// Whether it sums products of unsigned and signed bytes in 32 bits. x86 without VNNI sums two in 16
// bits and cuts off what does not fit. AVX-VNNI without AVX-512 is not told apart: it counts as
// without, as in the Python runtime.
inline bool adds_byte_products() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni") != 0;
#elif defined(_M_X64) || defined(_M_IX86)
    return false;  // exact, and a third slower
#else
    return true;
#endif
}

}  // namespace lcc
