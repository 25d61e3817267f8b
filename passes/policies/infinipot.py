"""InfiniPot: entries of high negative log likelihood first, then those the catalyst attends to."""

from collections.abc import Callable
from fractions import Fraction

import msgspec
import torch
from torch import Tensor

from lcc.config import BEGINNING
from lcc.passes.policies.base import Entries, EvictionPolicy, top_mask
from lcc.passes.policies.entry_scores import ATTENTION, FIRST_NLL, NLL
from lcc.passes.policies.options import check_share, check_span
from lcc.passes.policies.spans import span_max, span_mean

Worth = Callable[[Entries], Tensor]


class InfiniPotOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `infinipot`.

    alpha           share of the budget that negative log likelihood takes, before attention
    attention_span  neighbouring slots over which attention is pooled by maximum; 1 = single entries
    nll_span        neighbouring slots over which negative log likelihood is averaged
    catalyst        as of `consensus`
    """

    alpha: float = 0.5
    attention_span: int = 41
    nll_span: int = 41
    catalyst: str = BEGINNING

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        check_span("attention_span", self.attention_span)
        check_span("nll_span", self.nll_span)


class InfiniPot(EvictionPolicy):
    """Continual Context Distillation (arXiv 2410.01518).

    Protected entries are kept. Of the rest of the budget, `alpha` goes to the highest negative log
    likelihood, the same tokens in all KV heads as far as they are present; what then is left goes
    to the highest attention of the catalyst prompt, per KV head. Both are smoothed over
    neighbouring slots: the former by its mean, attention by its maximum. As published: spans of 1,
    nothing protected, alpha 0.5.

    The first token has no likelihood: it ranks first, and does not lift its neighbours.
    With alpha 0 no likelihood is computed, with alpha 1 no attention is.
    """

    name = "infinipot"
    Options = InfiniPotOptions

    def __init__(self, options: InfiniPotOptions) -> None:
        super().__init__(options)
        self.share = Fraction(options.alpha).limit_denominator(1000)
        attention = (ATTENTION,) if self.share < 1 else ()
        nll = (NLL,) if self.share > 0 else ()
        self.scores = attention + nll
        self.queries = "catalyst" if self.share < 1 else None

    def rank(self, entries: Entries) -> Tensor:
        """Infinite for those that their likelihood selects, their worth for the others."""
        return rank_by_share(self.share, entries, self.worth, self.options.nll_span)

    def worth(self, entries: Entries) -> Tensor:
        """What ranks the entries that likelihood did not select: attention, over the span."""
        return span_max(entries.score(ATTENTION), entries.valid, self.options.attention_span)


def rank_by_share(share: Fraction, entries: Entries, worth: Worth, span: int) -> Tensor:
    """The highest negative log likelihoods take their share of the budget, `worth` ranks the rest.

    returns     [Hkv, S] float32; infinite for those that were chosen first
    """
    if share == 1:
        return _smooth_nll(entries, span)
    ranked = worth(entries)
    if share == 0:
        return ranked
    protected = entries.protected.sum(0, keepdim=True)
    free = entries.budget - protected
    count = protected + free * share.numerator // share.denominator
    first = top_mask(entries.guard(_smooth_nll(entries, span)), count, entries.budget)
    return ranked.masked_fill(first, torch.inf)


def _smooth_nll(entries: Entries, span: int) -> Tensor:
    nll = entries.score(NLL)
    known = nll < FIRST_NLL
    return torch.where(known, span_mean(nll, entries.valid & known, span), FIRST_NLL)
