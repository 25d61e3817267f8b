"""KNorm: short keys."""

import torch
from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy

STEPS = 1024  # for each factor of e: squared lengths 0.1 % apart


class KNorm(EvictionPolicy):
    """The shorter a key, the more attention it tends to receive (arXiv 2406.11430).

    In the first layer the keys of one word all have the same length, up to rounding: there the
    newest of them survive, as wherever entries tie, and not those that were rounded down. (A cache
    of float16 rounds by more than a step; there it is still chance for some.)
    """

    name = "knorm"

    def rank(self, entries: Entries) -> Tensor:
        """Minus the logarithm of the squared length, which rotation does not change, in steps."""
        squared = (entries.key * entries.key).sum(-1)
        return -torch.round(STEPS * torch.log(squared.clamp(min=1e-12)))
