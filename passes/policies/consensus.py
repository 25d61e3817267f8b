"""Consensus: whole sentences, by InfiniPot's scores, the same in all KV heads and layers."""

import msgspec
import torch
from torch import Tensor

from lcc.config import BEGINNING
from lcc.errors import ConfigError
from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.entry_scores import AGREED, EXPECTED, FIRST_NLL, NLL, SENTENCE
from lcc.passes.policies.options import check_share
from lcc.passes.policies.spans import sentence_index, sentence_sum

HIGHEST_NLL = 30.0  # nats; more than that is no better
LOWEST = 1e-12  # of a score, so that its logarithm exists
PREDICTABLE = 0.5  # nats a token; a sentence of fewer says nothing that the rest did not say
FAR_BELOW = 1e6  # below every rank that a sentence with something to say can have


class ConsensusOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `consensus`.

    nll_weight  exponent of the negative log likelihood; attention's is 1 - nll_weight. None = 0.25,
                or 0 with retaining heads
    catalyst    text run over the full cache to read how it attends; the word "beginning" = the
                first 32 tokens of the very text being read, where prompts say what they want
    recall_floor    a recall brings no sentence back that the rest of the text predicts, if the
                question pays it less than this share of what it pays the best one; without effect
                where no likelihood is kept (nll_weight 0)
    """

    nll_weight: float | None = None
    catalyst: str = BEGINNING
    recall_floor: float = 0.02

    def __post_init__(self) -> None:
        if self.nll_weight is not None:
            check_share("nll_weight", self.nll_weight)
        check_share("recall_floor", self.recall_floor)


class Consensus(EvictionPolicy):
    """Sentences by nll^w * attention^(1 - w); lcc's own, made of InfiniPot's two scores.

    w           the option `nll_weight`
    nll         of a sentence: the sum of the negative log likelihoods of its entries, divided by
                the root of their number. A mean would favour short sentences, a sum long ones
    attention   of an entry: what the catalyst prompt pays it at most, over its tokens and over the
                query heads of a group, then the mean over all KV heads and layers (`agreed`); of a
                sentence: the mean of its entries

    A sentence that the rest of the text predicts (fewer than half a nat a token, where prose has
    two to four) is worth nothing by what it says. Such sentences rank below all others, the newest
    first: ranked by the little they add, what survives of a repeated text is one sentence over
    and over, and a model goes astray on it.

    Facts that are alike predict each other: where a text says one of them, the next one surprises
    little, and more budget does not keep it. The same goes for long sentences of prose, which rank
    high by what they say whatever it is. So attention counts most (docs/results/recall.md).

    One head's attention is noisy, the mean of all of them is not: in essays it ranks a sentence
    that is asked for among the first hundredth, where single heads do not (docs/fidelity.md).

    With retaining heads no catalyst is run: an entry's attention is what they expect, the mean of
    exp(score) over all of them, known as soon as it is read. Then nll_weight is 0 by default.
    Their scores must be logarithms of attention (teacher "repeat").
    """

    name = "consensus"
    Options = ConsensusOptions
    query_pool = "max"
    group_pool = "max"
    heads = "may"
    agrees = True

    def __init__(self, options: ConsensusOptions, *, with_heads: bool = False) -> None:
        weight = options.nll_weight
        if weight is None:
            weight = 0.0 if with_heads else 0.25
        if with_heads and weight == 1:
            raise ConfigError("nll_weight is 1, which reads no heads; wanted less, or no --heads")
        super().__init__(msgspec.structs.replace(options, nll_weight=weight))
        self.attention = EXPECTED if with_heads else AGREED
        attention = (self.attention,) if weight < 1 else ()
        nll = (NLL,) if weight > 0 else ()
        self.scores = (*attention, *nll, SENTENCE)
        self.queries = "catalyst" if weight < 1 and not with_heads else None

    def rank(self, entries: Entries) -> Tensor:
        """Logarithm of the weighted product; far below it, the slot of predictable entries."""
        index = sentence_index(entries.score(SENTENCE))
        valid = entries.valid.float().expand_as(index)
        count = sentence_sum(valid, index).clamp(min=1.0)
        weight = self.options.nll_weight
        rank = torch.zeros_like(valid)
        if weight > 0:
            total = sentence_sum(known_nll(entries.score(NLL)) * valid, index)
            rank = rank + weight * (total / count.sqrt()).clamp(min=LOWEST).log()
        if weight < 1:
            attention = sentence_sum(entries.score(self.attention) * valid, index) / count
            rank = rank + (1.0 - weight) * attention.clamp(min=LOWEST).log()
        if weight > 0:
            predictable = total < PREDICTABLE * count
            rank = torch.where(predictable, entries.slot.float() - FAR_BELOW, rank)
        return rank


def known_nll(nll: Tensor) -> Tensor:
    """Negative log likelihoods, nats, `HIGHEST_NLL` at most; 0 of the token that begins a text."""
    capped = torch.where(nll > HIGHEST_NLL, HIGHEST_NLL, nll)
    return torch.where(nll >= FIRST_NLL, 0.0, capped)
