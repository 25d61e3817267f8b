"""Gives memory back that the process holds and does not need: on Linux; elsewhere nothing.

Loading takes more than what stays, and what a deleted session had stays with the heap, so that the
next one comes on top of it.
"""

import contextlib
import ctypes
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

EVERY = 0.05  # seconds
MADV_PAGEOUT = 21  # of Linux 5.4 and newer; older ones refuse it, and nothing happens


def trim() -> None:
    """Return to the system what was freed."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(ctypes.c_size_t(0))


@contextlib.contextmanager
def paged_out(folder: str | Path) -> Iterator[None]:
    """Within, call `page_out` again and again, and at the end: weights are read to be packed.

    Else the pages that were read stay beside the packed copies until all are packed: 16 MB of
    SmolLM2 in 4 bits (docs/results/memory.md).
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            page_out(folder)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        page_out(folder)


def page_out(folder: str | Path) -> None:
    """Let go of the pages of mapped files of a folder; whoever needs one reads it again.

    Nothing can be lost by it, what a page says or whoever maps something else there meanwhile:
    the system only takes pages out that it can bring back.
    """
    maps = Path("/proc/self/maps")
    if sys.platform != "linux" or not maps.exists():
        return
    advise = ctypes.CDLL(None).madvise
    inside = re.escape(f"{Path(folder).resolve()}/")
    mapping = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ +{inside}")
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := mapping.match(line):
            start, end = (int(each, 16) for each in found.groups())
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_PAGEOUT)
