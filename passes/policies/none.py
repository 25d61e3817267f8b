"""None: the dense model, as far as the capacity goes."""

from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy


class NoEviction(EvictionPolicy):
    """Nothing is evicted; the runtime refuses what does not fit."""

    name = "none"
    evicts = False

    def rank(self, entries: Entries) -> Tensor:
        """Never asked."""
        raise AssertionError("policy none has no evict program")
