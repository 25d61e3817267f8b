"""Weights that are read from their files: who is told of it, and what stays in memory."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from torch import Tensor


class Latest:
    """The last thing that was made, for those who ask for it again at once."""

    def __init__(self) -> None:
        self._made: tuple[Hashable, Any] | None = None

    def of(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, now or for the same key the last time."""
        if self._made is None or self._made[0] != key:
            self._made = None  # before the next one takes its memory
            self._made = key, make()
        return self._made[1]


class _Kept:
    """Weights that stay in memory while something reads them again and again."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Tensor] = {}
        self._room = 0

    def get(self, key: Hashable) -> Tensor | None:
        return self._values.get(key)

    def offer(self, key: Hashable, value: Tensor) -> None:
        # Whoever comes first stays: of weights that are read in turns, the oldest come next.
        if value.nbytes <= self._room:
            self._room -= value.nbytes
            self._values[key] = value

    def begin(self, size: int) -> None:
        self._values, self._room = {}, size


class _Reads:
    """Counts the bytes of weights that are read and forgotten, block after block.

    And gives their memory back to the system. The C library would keep it, in pieces between what
    stays: 700 MB for each reading of a model of 1.2 billion weights.
    """

    EVERY = 1 << 28  # bytes read

    def __init__(self) -> None:
        self._read = 0
        self.tell: Callable[[int], None] = _nobody
        self._trim: Callable[[int], int] | None = None
        # Another C library than GNU's has no such function.
        with contextlib.suppress(AttributeError, OSError, TypeError):
            self._trim = ctypes.CDLL(None).malloc_trim

    def count(self, size: int) -> None:
        self.tell(size)
        self._read += size
        if self._read > self.EVERY and self._trim is not None:
            self._trim(0)
            self._read = 0


def _nobody(_: int) -> None:
    pass


KEPT, READS = _Kept(), _Reads()


@contextlib.contextmanager
def weights_kept(size: int) -> Iterator[None]:
    """Keep up to `size` bytes of what is read in here, for those that read it again."""
    KEPT.begin(size)
    try:
        yield
    finally:
        KEPT.begin(0)


@contextlib.contextmanager
def reads_told(tell: Callable[[int], None]) -> Iterator[None]:
    """Within, `tell` gets the bytes of each part of a weight that is read."""
    READS.tell = tell
    try:
        yield
    finally:
        READS.tell = _nobody
