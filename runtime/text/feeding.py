"""A text on its way into the cache: its ids, tokenized only as far as they are needed."""

from collections import deque
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


@dataclass
class _Ahead:
    """A part of which `left` of `size` ids are still to be taken; it ends at fraction `end`."""

    left: int
    size: int
    begin: float
    end: float


class TokenQueue:
    """The ids to read next, from parts that are asked for one at a time."""

    def __init__(self, parts: Iterator[Part], first: list[int]) -> None:
        """`first`: ids to read before those of the parts."""
        self._parts, self._ids = parts, list(first)
        self._ahead = deque([_Ahead(len(first), len(first), 0.0, 0.0)] if first else [])
        self._to = 0.0

    def peek(self, count: int) -> list[int]:
        """The next `count` ids, fewer only at the end of the text."""
        while len(self._ids) < count:
            ids, to = next(self._parts, ([], 1.0))
            if ids:
                self._ahead.append(_Ahead(len(ids), len(ids), self._to, to))
            self._ids += ids
            self._to = to
            if not ids and to == 1.0:
                break
        return self._ids[:count]

    def take(self, count: int) -> None:
        """Drop the next `count` ids: they were read."""
        del self._ids[:count]
        while self._ahead and count >= self._ahead[0].left:
            count -= self._ahead.popleft().left
        if count:
            self._ahead[0].left -= count

    @property
    def fraction(self) -> float:
        """Of the text that was taken."""
        if not self._ahead:
            return self._to
        part = self._ahead[0]
        return part.end - (part.end - part.begin) * part.left / part.size
