"""SnapKV: what the last tokens of the text attend to."""

from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.spans import span_max


class SnapKV(EvictionPolicy):
    """Attention of the last tokens before the eviction, pooled over spans (arXiv 2404.14469).

    The paper keeps these tokens themselves: the cache's `recent_size` does.
    """

    name = "snapkv"
    scalars = ("attention",)
    queries = "recent"

    def rank(self, entries: Entries) -> Tensor:
        """Attention, by its maximum over the span."""
        attention = entries.scalar("attention")
        return span_max(attention, entries.valid, self.config.attention_span)
