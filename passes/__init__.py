"""Graph passes: captured model -> specialized one -> programs. The order is written here only."""

from lcc.config import CacheConfig
from lcc.passes.base import Pass


def default_passes(cache: CacheConfig, *, queries: bool) -> list[Pass]:
    """The passes of a compilation, in order.

    queries     whether the policy reads how queries attend; then the step gives them out
    """
    from lcc.passes.find_attention import FindAttention
    from lcc.passes.lift_kv_cache import LiftKVCache

    return [
        FindAttention(table_size=cache.capacity),  # one operator per layer, whatever was written
        LiftKVCache(capacity=cache.capacity, queries=queries),  # from here on no hidden state
    ]
