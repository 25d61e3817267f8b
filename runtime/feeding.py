"""A text on its way into the cache: its ids, tokenized only as far as they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass

Part = tuple[list[int], float]  # ids, and the fraction of the text that they complete


@dataclass(frozen=True)
class Progress:
    """How far a feed has come.

    tokens      read by this feed
    fraction    of the text, 0 to 1
    used        entries per KV head held now
    cycles      of this feed so far
    seconds     since it began
    """

    tokens: int
    fraction: float
    used: int
    cycles: int
    seconds: float


class TokenQueue:
    """The ids to read next, from parts that are asked for one at a time."""

    def __init__(self, parts: Iterator[Part], first: list[int]) -> None:
        """`first`: ids to read before those of the parts."""
        self._parts, self._ids = parts, list(first)
        self._part_size, self._from, self._to = 1, 0.0, 0.0

    def peek(self, count: int) -> list[int]:
        """The next `count` ids, fewer only at the end of the text."""
        while len(self._ids) < count:
            ids, to = next(self._parts, ([], 1.0))
            self._part_size, self._from, self._to = max(len(ids), 1), self._to, to
            self._ids += ids
            if not ids and to == 1.0:
                break
        return self._ids[:count]

    def take(self, count: int) -> None:
        """Drop the next `count` ids: they were read."""
        del self._ids[:count]

    @property
    def fraction(self) -> float:
        """Of the text that was taken."""
        left = min(len(self._ids) / self._part_size, 1.0)
        return self._to - (self._to - self._from) * left
