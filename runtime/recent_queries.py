"""What policies that score by the newest tokens read: their queries, rolling."""

import numpy as np

from lcc.config import RECENT_QUERIES


class RecentQueries:
    """The rotated queries of the newest tokens, of every layer that is scored by them.

    Kept in a block of twice the length: queries are appended, and moved to its front when it is
    full, so that a token costs one row and not the whole block.
    """

    def __init__(self, layers: dict[int, tuple[int, int]]) -> None:
        """`layers`: layer -> (Hq, D)."""
        self._blocks = {
            layer: np.zeros((heads, 2 * RECENT_QUERIES, size), np.float32)
            for layer, (heads, size) in layers.items()
        }
        self._end = 0
        self.count = 0

    @property
    def layers(self) -> list[int]:
        """Layers whose queries are kept."""
        return list(self._blocks)

    def clear(self) -> None:
        """Forget all."""
        self._end = self.count = 0

    def append(self, queries: dict[int, np.ndarray]) -> None:
        """Add the queries of a step: layer -> [Hq, n, D], n >= 1."""
        new = min(next(iter(queries.values())).shape[1], RECENT_QUERIES)
        kept = min(self.count, RECENT_QUERIES - new)
        move = self._end + new > 2 * RECENT_QUERIES
        start = kept if move else self._end
        for layer, block in self._blocks.items():
            if move:
                block[:, :kept] = block[:, self._end - kept : self._end]
            block[:, start : start + new] = queries[layer][:, -new:]
        self._end, self.count = start + new, kept + new

    def drop(self, count: int) -> None:
        """Forget the newest `count`."""
        count = min(count, self.count)
        self._end, self.count = self._end - count, self.count - count

    def get(self, layer: int) -> np.ndarray:
        """[Hq, count, D] float32, oldest first."""
        return np.ascontiguousarray(self._blocks[layer][:, self._end - self.count : self._end])
