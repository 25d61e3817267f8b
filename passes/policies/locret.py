"""Locret: what trained retaining heads say of each entry."""

from torch import Tensor

from lcc.artifact.manifest import Scalar
from lcc.config import PolicyConfig
from lcc.passes.policies.base import Entries
from lcc.passes.policies.infinipot import InfiniPot
from lcc.passes.policies.spans import span_max


class Locret(InfiniPot):
    """Highest retaining score, per head (arXiv 2410.01805, Algorithm 1).

    As published: spans of 1, no novelty. `alpha` gives that share of the budget to novelty first,
    as InfiniPot does; scores are pooled over `attention_span` neighbours by their maximum.

    The newest `recent_size` entries survive every cycle (stabilizers), except the last one of a
    text (`feed(..., last=True)`): that one keeps, whatever their scores, only those of the text's
    last `tail_size` tokens that were read already. Stored scores are never changed.
    """

    name = "locret"
    alpha = 0.0
    tail_size = 100
    heads = "must"

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        novelty: tuple[Scalar, ...] = ("novelty",) if self.share > 0 else ()
        self.scalars = ("retaining", *novelty)
        self.queries = None

    def worth(self, entries: Entries) -> Tensor:
        """The retaining score, by its maximum over the span."""
        retaining = entries.scalar("retaining")
        return span_max(retaining, entries.valid, self.config.attention_span)
