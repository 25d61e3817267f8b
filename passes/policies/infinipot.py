"""InfiniPot: novel entries first, then those the catalyst prompt attends to."""

from fractions import Fraction

import torch
from torch import Tensor

from lcc.artifact.manifest import Scalar
from lcc.config import PolicyConfig
from lcc.passes.policies.base import Entries, EvictionPolicy, top_mask
from lcc.passes.policies.spans import span_max, span_mean

UNKNOWN_NOVELTY = 1e30  # of the text's first token, which nothing predicted


class InfiniPot(EvictionPolicy):
    """Continual Context Distillation (arXiv 2410.01518).

    Protected entries are kept. Of the rest of the budget, `alpha` goes to the highest novelty, the
    same tokens in all heads as far as they are present; what then is left goes to the highest
    attention of the catalyst prompt, per head. Both are smoothed over neighbouring slots: novelty
    by its mean, attention by its maximum. As published: spans of 1, nothing protected, alpha 0.5.

    The first token has no novelty: it ranks first, and does not lift its neighbours.
    With alpha 0 novelty is neither read nor computed, with alpha 1 attention is not.
    """

    name = "infinipot"

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        self.share = Fraction(self.alpha).limit_denominator(1000)
        attention: tuple[Scalar, ...] = ("attention",) if self.share < 1 else ()
        novelty: tuple[Scalar, ...] = ("novelty",) if self.share > 0 else ()
        self.scalars = attention + novelty
        self.queries = "catalyst" if self.share < 1 else None

    def rank(self, entries: Entries) -> Tensor:
        """Infinite for those that novelty selects, their worth for the others."""
        if self.share == 1:
            return self._novelty(entries)
        worth = self.worth(entries)
        if self.share == 0:
            return worth
        protected = entries.protected.sum(0, keepdim=True)
        free = entries.budget - protected
        count = protected + free * self.share.numerator // self.share.denominator
        novel = top_mask(entries.guard(self._novelty(entries)), count, entries.budget)
        return worth.masked_fill(novel, torch.inf)

    def worth(self, entries: Entries) -> Tensor:
        """What ranks the entries that novelty did not select: attention, over the span."""
        attention = entries.scalar("attention")
        return span_max(attention, entries.valid, self.config.attention_span)

    def _novelty(self, entries: Entries) -> Tensor:
        novelty = entries.scalar("novelty")
        known = novelty < UNKNOWN_NOVELTY
        smooth = span_mean(novelty, entries.valid & known, self.config.novelty_span)
        return torch.where(known, smooth, UNKNOWN_NOVELTY)
