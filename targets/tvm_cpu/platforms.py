"""Where libraries of target `tvm:...` run: what LLVM calls the place, and what links for it."""

import shutil
from dataclasses import dataclass

from lcc.artifact.cpu import ARM_LEVELS, best_level, levels_here

RECIPE = "BUILD.md"


@dataclass(frozen=True)
class Platform:
    """One of them.

    triple      LLVM's name; None = this machine's system, by the level of CPU
    levels      of CPU (`lcc.artifact.cpu`) that it may have, the best one first
    linker      the compiler that makes a library of objects; None = this machine's own
    objects     True: only objects are made, because what links them is not on this machine
    note        what was not tried
    """

    triple: str | None
    levels: tuple[str, ...]
    linker: str | None = None
    objects: bool = False
    note: str | None = None


def platform(name: str) -> Platform:
    """One of cpu (this machine), aarch64-linux, android, ios."""
    if name == "cpu":
        return Platform(None, levels_here())
    return {
        "aarch64-linux": Platform("aarch64-linux-gnu", ARM_LEVELS, "aarch64-linux-gnu-g++"),
        "android": Platform(
            "aarch64-linux-android",
            ARM_LEVELS,
            objects=True,
            note="objects for Android, never linked or run on a device",
        ),
        "ios": Platform(
            "arm64-apple-ios",
            ARM_LEVELS,
            objects=True,
            note="objects for iOS, never linked or run on a device",
        ),
    }[name]


def best(of: Platform) -> str:
    """The level of CPU that is compiled for unless another one is asked for.

    This machine's own; of another machine nothing is known, so what each of its kind has.
    """
    return best_level() if of.triple is None else of.levels[-1]


def missing_linker(of: Platform) -> str | None:
    """What is not on this machine and has to be."""
    return None if of.linker is None or shutil.which(of.linker) else of.linker


LINK = {
    "android": """\
    CXX=$NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android24-clang++
    tar xf {file} && $CXX -shared -fPIC -o {stem}.so lib*.o devc.o -L. -ltvm_runtime -ltvm_ffi
""",
    "ios": """\
    CXX="xcrun -sdk iphoneos clang++ -arch arm64"
    tar xf {file} && $CXX -dynamiclib -o {stem}.dylib lib*.o devc.o -L. -ltvm_runtime -ltvm_ffi
""",
}


def recipe(name: str, file: str, level: str) -> str:
    """How the objects become a library on a machine with the device's tools. It was not tried."""
    lines = LINK[name].format(file=file, stem=file.removesuffix(".tar"))
    return f"""\
# {file}

Machine code of all programs, for {name} and CPUs of level {level}, which nothing checks on the
device; nobody has linked or run it yet. TVM's runtime (apache/tvm 0.27, apache-tvm-ffi 0.1.14),
libtvm_runtime and libtvm_ffi, has to be built for the device from its sources. Then

{lines}
The library has a function for every program in manifest.json. It takes its inputs in that order,
and after them the weights, in the order of the file with their index.
"""
