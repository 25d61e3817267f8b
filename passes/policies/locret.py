"""Locret: what trained retaining heads say of each entry."""

from fractions import Fraction

import msgspec
from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.entry_scores import NLL, RETAINING
from lcc.passes.policies.infinipot import rank_by_share
from lcc.passes.policies.options import check_share, check_size, check_span
from lcc.passes.policies.spans import span_max


class LocretOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `locret`.

    alpha           share of the budget that negative log likelihood takes first, as of `infinipot`
    score_span      neighbouring slots over which retaining scores are pooled by maximum
    nll_span        neighbouring slots over which negative log likelihood is averaged
    tail_size       newest tokens of a text that its last cycle keeps, whatever their scores
    """

    alpha: float = 0.0
    score_span: int = 41
    nll_span: int = 41
    tail_size: int = 100

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)
        check_span("score_span", self.score_span)
        check_span("nll_span", self.nll_span)
        check_size("tail_size", self.tail_size)


class Locret(EvictionPolicy):
    """Highest retaining score, per KV head (arXiv 2410.01805, Algorithm 1).

    As published: a span of 1, no likelihood.

    The newest `recent_size` entries survive every cycle (stabilizers), except the last one of a
    text (`feed(..., last=True)`): that one keeps, whatever their scores, only those of the text's
    last `tail_size` tokens that were read already. Stored scores are never changed.
    """

    name = "locret"
    Options = LocretOptions
    heads = "must"

    def __init__(self, options: LocretOptions) -> None:
        super().__init__(options)
        self.share = Fraction(options.alpha).limit_denominator(1000)
        self.scores = (RETAINING, NLL) if self.share > 0 else (RETAINING,)
        self.tail_size = options.tail_size

    def rank(self, entries: Entries) -> Tensor:
        """The retaining score, by its maximum over the span; a share by likelihood first."""
        return rank_by_share(self.share, entries, self.worth, self.options.nll_span)

    def worth(self, entries: Entries) -> Tensor:
        """The retaining score, by its maximum over the span."""
        return span_max(entries.score(RETAINING), entries.valid, self.options.score_span)
