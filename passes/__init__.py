"""Graph passes: captured model -> specialized one -> programs.

The order is written here only, but for HybridLayers: lcc/compile.py runs it after it has checked
that the passes before it changed no logit.
"""

from lcc.config import CacheConfig
from lcc.passes.base import Pass
from lcc.sources.heads import RetainingHeads


def default_passes(
    cache: CacheConfig, *, queries: bool, heads: RetainingHeads | None = None
) -> list[Pass]:
    """The passes of a compilation, in order.

    queries     whether the policy reads how queries attend; then the step gives them out
    heads       trained heads, where the policy reads what they say
    """
    from lcc.passes.find_attention import FindAttention
    from lcc.passes.insert_retaining_heads import InsertRetainingHeads
    from lcc.passes.lift_kv_cache import LiftKVCache

    # One operator per layer, whatever was written; then what scores its entries; from the last
    # pass on no hidden state.
    steps: list[Pass] = [FindAttention(table_size=cache.capacity)]
    if heads is not None:
        steps.append(InsertRetainingHeads(heads, capacity=cache.capacity))
    return [*steps, LiftKVCache(capacity=cache.capacity, queries=queries)]
