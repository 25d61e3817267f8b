"""What an evicted entry knew goes to the kept one that is most like it."""

import torch
from torch import Tensor
from torch.nn import functional


def merge_values(key: Tensor, value: Tensor, kept: Tensor, valid: Tensor, least: float) -> Tensor:
    """Values of the kept entries, each the mean of its own and of those evicted into it.

    An evicted entry goes to the kept one whose key has the highest cosine with its own, if that is
    at least `least`; the keys stay (LoCoCo, arXiv 2406.05317, and KVMerger, arXiv 2407.08454, merge
    by learned and by Gaussian weights; a mean has none).

    key, value   [Hkv, S, D]     float32, keys as stored (rotated)
    kept         [Hkv, budget]   int64, slots
    valid        [S]             bool, slots in use
    returns      [Hkv, budget, D]
    """
    unit = functional.normalize(key, dim=-1)
    rows = kept[:, :, None].expand(-1, -1, key.shape[2])
    cosine, nearest = (unit @ unit.gather(1, rows).transpose(1, 2)).max(-1)  # [Hkv, S]
    stays = torch.zeros_like(cosine).scatter(1, kept, 1.0)
    weight = ((cosine >= least) & valid).float() * (1.0 - stays)
    into = nearest[:, :, None].expand(-1, -1, key.shape[2])
    # zeros first: what lies in slots never used may be anything
    given = torch.where(weight[:, :, None] > 0, value, 0.0)
    total = value.gather(1, rows).scatter_add(1, into, given)
    count = torch.ones_like(kept, dtype=torch.float32).scatter_add(1, nearest, weight)
    return total / count[:, :, None]
