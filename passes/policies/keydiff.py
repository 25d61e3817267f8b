"""KeyDiff: keys unlike the others."""

from torch import Tensor
from torch.nn import functional

from lcc.passes.policies.base import Entries, EvictionPolicy


class KeyDiff(EvictionPolicy):
    """The less similar a key to the mean direction of all keys, the better (arXiv 2504.15364).

    Similarity is the cosine; directions are of keys as stored, i.e. rotated.
    """

    name = "keydiff"

    def rank(self, entries: Entries) -> Tensor:
        """Minus the cosine with the mean of the unit keys."""
        direction = functional.normalize(entries.key, dim=-1)  # [Hkv, S, D]
        valid = entries.valid.to(direction.dtype)
        anchor = functional.normalize(valid @ direction, dim=-1)  # [Hkv, D]
        return -(direction @ anchor[:, :, None])[:, :, 0]
