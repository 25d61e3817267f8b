"""Consensus: whole sentences, by InfiniPot's two scores, the same in all heads and layers."""

import torch
from torch import Tensor

from lcc.artifact.manifest import Scalar
from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.spans import sentence_index, sentence_sum

HIGHEST_NOVELTY = 30.0  # nats; more than that is no better
UNKNOWN = 1e30  # novelty of the first token of a text, which nothing predicted: counts as 0
LOWEST = 1e-12  # of a score, so that its logarithm exists
PREDICTABLE = 0.5  # nats a token; a sentence of fewer says nothing that the rest did not say
FAR_BELOW = 1e6  # below every rank that a sentence with something to say can have


class Consensus(EvictionPolicy):
    """Sentences by novelty^alpha * attention^(1 - alpha); lcc's own, made of InfiniPot's scores.

    novelty     of a sentence: the sum over its entries, divided by the root of their number. A mean
                would favour short sentences, a sum long ones
    attention   of an entry: what the catalyst prompt pays it at most, over its tokens and over the
                query heads of a group, then the mean over all KV heads and layers that still hold
                the token (`consensus`, made by the runtime); of a sentence: the mean of its entries

    A sentence that the rest of the text predicts (fewer than half a nat a token, where prose has
    two to four) is worth nothing by what it says. Such sentences rank below all others, the newest
    first: ranked by their traces of novelty, what survives of a repeated text is one sentence over
    and over, and a model goes astray on it.

    One head's attention is noisy, the mean of all of them is not: in essays it ranks a sentence
    that is asked for among the first hundredth, where single heads do not (docs/fidelity.md).

    With retaining heads no catalyst is run: an entry's attention is what they expect, the mean of
    exp(score) over all of them, known as soon as it is read. Then alpha is 0 where none is given.
    Their scores must be logarithms of attention (teacher "repeat").
    """

    name = "consensus"
    query_pool = "max"
    group_pool = "max"
    heads = "may"

    def __init__(self, config: PolicyConfig, *, with_heads: bool = False) -> None:
        self.alpha = 0.0 if with_heads else 0.75
        super().__init__(config)
        alpha = self.alpha
        if with_heads and alpha == 1:
            raise ConfigError("alpha is 1, which is novelty alone; wanted less, or no heads")
        attention: tuple[Scalar, ...] = ("consensus",) if alpha < 1 else ()
        novelty: tuple[Scalar, ...] = ("novelty",) if alpha > 0 else ()
        self.scalars = (*attention, *novelty, "sentence")
        self.queries = "catalyst" if alpha < 1 and not with_heads else None

    def rank(self, entries: Entries) -> Tensor:
        """Logarithm of the weighted product; far below it, the slot of predictable entries."""
        index = sentence_index(entries.scalar("sentence"))
        valid = entries.valid.float().expand_as(index)
        count = sentence_sum(valid, index).clamp(min=1.0)
        alpha = self.alpha
        rank = torch.zeros_like(valid)
        if alpha > 0:
            novelty = entries.scalar("novelty")
            novelty = torch.where(novelty > HIGHEST_NOVELTY, HIGHEST_NOVELTY, novelty)
            novelty = torch.where(entries.scalar("novelty") >= UNKNOWN, 0.0, novelty)
            total = sentence_sum(novelty * valid, index)
            rank = rank + alpha * (total / count.sqrt()).clamp(min=LOWEST).log()
        if alpha < 1:
            attention = sentence_sum(entries.scalar("consensus") * valid, index) / count
            rank = rank + (1.0 - alpha) * attention.clamp(min=LOWEST).log()
        if alpha > 0:
            predictable = total < PREDICTABLE * count
            rank = torch.where(predictable, entries.slot.float() - FAR_BELOW, rank)
        return rank
