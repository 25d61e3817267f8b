"""Levels of CPUs that compiled code may need, and which of them this machine has.

A level is LLVM's name of a CPU that stands for a family, and so a portable `mcpu`: cooperlake has
AVX-512 with VNNI and BF16 (AMD since Zen 4, Intel's servers since 2020), x86-64-v4 has AVX-512,
x86-64-v3 has AVX2 and FMA; armv8.2-a, LLVM's name of an architecture, has products of four bytes
and arithmetic in float16 (Cortex-A55, A75 and A76, Apple's A13, and what came after them); x86-64
and generic (64-bit Arm) are what every one of them has.
"""

import platform

LEVELS = {  # best first -> what numpy calls the features that it needs
    "cooperlake": ("AVX512BF16", "AVX512VNNI", "AVX512_SKX", "AVX2", "FMA3"),
    "x86-64-v4": ("AVX512_SKX", "AVX2", "FMA3"),  # SKX: F, CD, BW, DQ, VL
    "x86-64-v3": ("AVX2", "FMA3"),
    "x86-64": (),
    "armv8.2-a": ("ASIMDDP", "ASIMDHP"),
    "generic": (),
}
ARM_LEVELS = ("armv8.2-a", "generic")


def _family(level: str) -> str:
    return "arm" if level in ARM_LEVELS else "x86"


def lacking(level: str) -> list[str]:
    """What this machine lacks of a level of `LEVELS`; empty = code for it runs here."""
    if level not in LEVELS:
        return [f"any such level: wanted one of {', '.join(LEVELS)}"]
    machine = platform.machine().lower()
    if ("x86" if machine in ("x86_64", "amd64") else "arm") != _family(level):
        return [f"a CPU of another kind than {machine}"]
    from numpy._core._multiarray_umath import __cpu_features__ as features

    return [name for name in LEVELS[level] if not features.get(name)]


def levels_here() -> tuple[str, ...]:
    """Levels of this machine's family of CPUs, the best one first, whether it has them or not."""
    family = "x86" if platform.machine().lower() in ("x86_64", "amd64") else "arm"
    return tuple(level for level in LEVELS if _family(level) == family)


def best_level() -> str:
    """The best level that this machine has."""
    return next(level for level in LEVELS if not lacking(level))


def adds_byte_products() -> bool:
    """Whether this CPU sums products of unsigned and signed bytes in 32 bits.

    x86 without VNNI sums two in 16 bits and cuts off what does not fit (ONNX Runtime,
    `session.x64quantprecision`). AVX-VNNI without AVX-512 is not told apart: it counts as without.
    """
    if levels_here() == ARM_LEVELS:
        return True
    from numpy._core._multiarray_umath import __cpu_features__ as features

    return bool(features.get("AVX512VNNI") or features.get("AVX512_ICL"))
