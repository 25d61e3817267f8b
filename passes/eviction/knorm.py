"""KNorm: short keys."""

from torch import Tensor

from lcc.passes.eviction.base import Entries, EvictionPolicy


class KNorm(EvictionPolicy):
    """The shorter a key, the more attention it tends to receive (arXiv 2406.11430)."""

    name = "knorm"

    def rank(self, entries: Entries) -> Tensor:
        """Minus the squared length, which rotation does not change."""
        return -(entries.key * entries.key).sum(-1)
