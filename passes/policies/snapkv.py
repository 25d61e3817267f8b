"""SnapKV: what the newest tokens of the text attend to."""

import msgspec
from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.entry_scores import ATTENTION
from lcc.passes.policies.options import check_span
from lcc.passes.policies.spans import span_max


class SnapKVOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `snapkv`.

    attention_span  neighbouring slots over which attention is pooled by maximum; 1 = single entries
    """

    attention_span: int = 41

    def __post_init__(self) -> None:
        check_span("attention_span", self.attention_span)


class SnapKV(EvictionPolicy):
    """Attention of the newest tokens before the eviction, pooled over spans (arXiv 2404.14469).

    The paper keeps these tokens themselves: the cache's `recent_size` does.
    """

    name = "snapkv"
    Options = SnapKVOptions
    scores = (ATTENTION,)
    queries = "newest"

    def rank(self, entries: Entries) -> Tensor:
        """Attention, by its maximum over the span."""
        return span_max(entries.score(ATTENTION), entries.valid, self.options.attention_span)
