"""The memory that ONNX Runtime's programs compute in: one arena of this process for all of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ARENA_BYTES = 64 << 20  # of addresses; memory is taken where something is written
_ARENA = threading.Lock()
_registered: list[int] = []  # limit of the arena that new sessions take; empty = there is none


@contextmanager
def arena(limit: int) -> Iterator[None]:
    """While a session is made, the arena of this process is one of at most `limit` bytes, 0 = any.

    One for all sessions with the same limit, as far as they are made one after the other. It begins
    with one region that is large enough for most chunks. From 1 MB it would grow by regions twice
    as large, and what lies in the smaller ones cannot serve what is larger.
    """
    import onnxruntime

    with _ARENA:
        if _registered != [limit]:
            kind, memory = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
            place = onnxruntime.OrtMemoryInfo("Cpu", kind.ORT_ARENA_ALLOCATOR, 0, memory.DEFAULT)
            first = min(ARENA_BYTES, limit or ARENA_BYTES)
            sizes = {"initial_chunk_size_bytes": first, "max_mem": limit}
            onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(sizes))
            _registered[:] = [limit]
        yield
