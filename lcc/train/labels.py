"""What a retaining head should have said: how much the tokens after it looked at an entry."""

from __future__ import annotations

import torch
from torch import Tensor

from lcc.train.examples import Teacher
from lcc.train.layer_states import LayerStates

BLOCK = 128  # queries compared at once
LOWEST = -20.0  # log attention; less is nothing


@torch.no_grad()
def labels(states: LayerStates, scored: int, teacher: Teacher) -> Tensor:
    """[scored, Hkv] float32: the most that any later query of the group thinks of each entry.

    answer      the largest logit q.k * scale, before the softmax (Locret, 3.2, with the scale that
                its code applies and its formula leaves out)
    repeat      the largest log attention, down to -20: KVzip's score (arXiv 2505.23416, eq. 3), as
                a logarithm because attention spans orders of magnitude. A softmax weighs what else
                a query looks at, which a raw logit does not

    Compared in blocks of queries: memory grows with the length, not with its square.
    """
    n, heads = states.k.shape[:2]
    group = states.q.shape[1] // heads
    keys = states.k.permute(1, 2, 0)  # [Hkv, D, n]
    best = torch.full((heads, scored), -torch.inf, device=keys.device)
    for start in range(scored, n, BLOCK):
        end = min(start + BLOCK, n)
        q = states.q[start:end].reshape(end - start, heads, group, -1).permute(1, 2, 0, 3)
        seen = keys[..., : end if teacher == "repeat" else scored]
        logits = (q * states.scale).flatten(1, 2) @ seen  # [Hkv, g * rows, end or scored]
        if states.softcap:
            logits = torch.tanh(logits / states.softcap) * states.softcap
        if teacher == "repeat":
            rows = torch.arange(end - start, device=keys.device)
            later = (rows > rows[:, None]).repeat(group, 1)  # of the block itself
            logits[..., start:].masked_fill_(later, -torch.inf)
            logits = logits[..., :scored] - logits.logsumexp(-1, keepdim=True)
        best = torch.maximum(best, logits.amax(dim=1))
    if teacher == "repeat":
        best = best.clamp(min=LOWEST)
    return best.transpose(0, 1)


def overlap(scores: Tensor, wanted: Tensor, share: float = 0.1) -> Tensor:
    """[Hkv]: of the `share` of entries with the highest labels, how many have the highest scores.

    scores, wanted      [n, Hkv]
    """
    count = max(1, int(len(scores) * share))
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen.scatter_(0, scores.topk(count, dim=0).indices, True)
    best = torch.zeros_like(chosen).scatter_(0, wanted.topk(count, dim=0).indices, True)
    return (chosen & best).sum(0) / count
