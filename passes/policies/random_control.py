"""Random: the control that every comparison needs."""

import msgspec
from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.entry_scores import NOISE
from lcc.passes.policies.options import check_size


class RandomOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `random`.

    seed    of the numbers; a session may have another one
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_size("seed", self.seed, (1 << 31) - 1)  # programs take an int32


class RandomControl(EvictionPolicy):
    """Each entry is worth a number drawn from its token position, layer, KV head and the seed."""

    name = "random"
    Options = RandomOptions
    scores = (NOISE,)

    def rank(self, entries: Entries) -> Tensor:
        """The number drawn."""
        return entries.score(NOISE)
