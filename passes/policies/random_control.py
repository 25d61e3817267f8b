"""Random: the control that every comparison needs."""

from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy


class RandomControl(EvictionPolicy):
    """Each entry is worth a number drawn when it was written, from the session's seed."""

    name = "random"
    scalars = ("noise",)

    def rank(self, entries: Entries) -> Tensor:
        """The number drawn."""
        return entries.scalar("noise")
