#include "engines/cpu_level.h"

#include <vector>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace lcc {

namespace {

#if defined(__x86_64__) || defined(_M_X64)
constexpr bool IS_X86 = true;
#else
constexpr bool IS_X86 = false;
#endif

struct Feature {
    const char* name;
    bool here;
};

#if defined(__x86_64__) && defined(__GNUC__)
#define LCC_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#else
#define LCC_HAS(feature) false
#endif

/** Of Armv8.2's additions, those that TVM's kernels of armv8.2-a use; false where nobody can tell. */
std::vector<Feature> arm_features() {
#if defined(__aarch64__) && defined(__linux__)
    const unsigned long bits = getauxval(AT_HWCAP);
    const bool dot = (bits >> 20) & 1, half = (bits >> 10) & 1;  // HWCAP_ASIMDDP, HWCAP_ASIMDHP
#elif defined(__aarch64__) && defined(__APPLE__)
    const auto has = [](const char* name) {
        int value = 0;
        size_t size = sizeof value;
        return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    const bool dot = has("hw.optional.arm.FEAT_DotProd"), half = has("hw.optional.arm.FEAT_FP16");
#else
    const bool dot = false, half = false;
#endif
    return {{"ASIMDDP", dot}, {"ASIMDHP", half}};
}

std::vector<Feature> x86_features(const std::string& level) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
#endif
    std::vector<Feature> wanted;
    if (level != "x86-64") {
        wanted = {{"AVX2", LCC_HAS("avx2")}, {"FMA3", LCC_HAS("fma")}};
    }
    if (level == "x86-64-v4" || level == "cooperlake") {
        const bool all = LCC_HAS("avx512f") && LCC_HAS("avx512bw") && LCC_HAS("avx512cd") &&
                         LCC_HAS("avx512dq") && LCC_HAS("avx512vl");
        wanted.insert(wanted.begin(), Feature{"AVX512_SKX", all});
    }
    if (level == "cooperlake") {
        wanted.insert(wanted.begin(), {{"AVX512BF16", LCC_HAS("avx512bf16")},
                                       {"AVX512VNNI", LCC_HAS("avx512vnni")}});
    }
    return wanted;
}

}  // namespace

std::string lacking(const std::string& level) {
    const bool x86 = level == "x86-64" || level == "x86-64-v3" || level == "x86-64-v4" ||
                     level == "cooperlake";
    const bool plain_arm = level == "generic";
    if (level.empty() || (plain_arm && !IS_X86)) {
        return "";
    }
    if (!x86 && !plain_arm && level != "armv8.2-a") {
        return "any such level: wanted one of cooperlake, x86-64-v4, x86-64-v3, x86-64, armv8.2-a, "
               "generic";
    }
    if (x86 != IS_X86) {
        return IS_X86 ? "a CPU of another kind than x86-64" : "a CPU of x86-64";
    }
    std::string names;
    for (const Feature& feature : x86 ? x86_features(level) : arm_features()) {
        if (!feature.here) {
            names += (names.empty() ? "" : ", ") + std::string(feature.name);
        }
    }
    return names;
}

}  // namespace lcc
