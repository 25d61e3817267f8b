"""H2O: heavy hitters, by all the attention an entry ever received."""

from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.entry_scores import ATTENTION


class H2O(EvictionPolicy):
    """Attention summed over all queries since the entry was written (arXiv 2306.14048).

    The paper gives half of the budget to the newest entries: the cache's `recent_size` does.
    """

    name = "h2o"
    scores = (ATTENTION,)
    queries = "all"
    decay = 1.0
    query_pool = "sum"

    def rank(self, entries: Entries) -> Tensor:
        """The sum so far."""
        return entries.score(ATTENTION)
