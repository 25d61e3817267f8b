"""Memory asked for before it is read: TVM has no name for it, LLVM has.

A step of one token waits for memory. Its kernels read a cache in pieces of some KB, keys and values
in turn, which is too short for the CPU to guess what comes next.
"""

from contextlib import AbstractContextManager
from typing import Any

from lcc.targets.tvm_cpu.tir import script

LINE = 16  # float32 numbers that come at once
_CODE = """
define void @lcc_fetch(ptr %place) {
  call void @llvm.prefetch.p0(ptr %place, i32 0, i32 3, i32 1)
  ret void
}
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
"""


def prefetching() -> AbstractContextManager:
    """The part of a kernel that calls `fetch`."""
    T = script()
    return T.attr(T.int32(0), "pragma_import_llvm", _CODE)


def fetch(place: Any) -> None:
    """Ask for the line in which a number of a buffer lies; it may lie behind the buffer's end."""
    T = script()
    T.evaluate(T.call_extern("void", "lcc_fetch", T.address_of(place)))
