"""Gives memory back that the process holds and does not need: on Linux; elsewhere nothing.

Loading takes more than what stays, and what a deleted session had stays with the heap, so that the
next one comes on top of it.
"""

import ctypes
import mmap
import re
import sys
from pathlib import Path


def trim() -> None:
    """Return to the system what was freed."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(ctypes.c_size_t(0))


def drop_pages(folder: str | Path) -> None:
    """Let go of the pages of mapped files of a folder; whoever needs one reads it again.

    Mappings that were written to are left alone: what was written would be lost.
    """
    maps = Path("/proc/self/smaps")
    if sys.platform != "linux" or not maps.exists():
        return
    advise = ctypes.CDLL(None).madvise
    inside = re.escape(f"{Path(folder).resolve()}/")
    mapping = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ +{inside}")
    pages = maps.read_text(encoding="utf-8", errors="replace")
    for page in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", pages, flags=re.MULTILINE):
        if (found := mapping.match(page)) and re.search(r"^Anonymous: +0 kB", page, re.MULTILINE):
            start, end = (int(each, 16) for each in found.groups())
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
