"""Graph passes: captured model -> specialized one. The order is written here only."""

from typing import TYPE_CHECKING

from lcc.config import NEWEST_QUERIES, CacheConfig
from lcc.passes.base import Pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from lcc.passes.graph import ModelGraph
    from lcc.passes.policies import EvictionPolicy
    from lcc.sources.heads import RetainingHeads


def lag_of(policy: "EvictionPolicy") -> int:
    """Newest tokens that a cycle reads once more: layers that are not full keep what they see."""
    return NEWEST_QUERIES if policy.queries == "newest" else 0


def default_passes(
    cache: CacheConfig,
    policy: "EvictionPolicy",
    *,
    plan: str = "dense",
    heads: "RetainingHeads | None" = None,
    captured: "ModelGraph | None" = None,
    window: int | None = None,
    later: "list[Callable[[], None]] | None" = None,
) -> list[Pass]:
    """The passes of a compilation, in order.

    policy      where it reads how queries attend, the step gives them out
    plan        what each layer sees, see `lcc.ir.plan`
    heads       trained heads, where the policy reads what they say
    captured    the graph to compare the logits with, before a plan changes them; None = no check
    window      tokens that the model was trained to read
    later       takes that comparison, which is then not made: it reads all weights
    """
    from lcc.passes.average_retaining_heads import AverageRetainingHeads
    from lcc.passes.check_chunks import CheckChunks
    from lcc.passes.find_attention import FindAttention
    from lcc.passes.hybrid_layers import HybridLayers
    from lcc.passes.insert_retaining_heads import InsertRetainingHeads
    from lcc.passes.lift_kv_cache import LiftKVCache
    from lcc.passes.lift_state import LiftState
    from lcc.passes.policies.entry_scores import EXPECTED
    from lcc.passes.share_latents import ShareLatents
    from lcc.passes.spell_out_complex import SpellOutComplex

    steps: list[Pass] = [FindAttention(table_size=cache.capacity)]  # one operator per layer
    steps.append(SpellOutComplex())  # behind it: it reads rotations of any spelling
    if heads is not None:  # before there is a cache: they read what is written to it
        steps.append(InsertRetainingHeads(heads, capacity=cache.capacity))
    steps.append(ShareLatents())
    steps.append(
        LiftKVCache(capacity=cache.capacity, queries=policy.queries is not None or policy.agrees)
    )
    steps.append(LiftState())
    if captured is not None:  # from here on no hidden state
        steps.append(CheckChunks(captured, longest=window, later=later))
    if plan.strip() != "dense":
        sizes = {"chunk_size": cache.chunk_size, "catalyst_size": cache.catalyst_size}
        lag = lag_of(policy)
        steps.append(HybridLayers(plan, positions=cache.positions, lag=lag, **sizes))
    if EXPECTED in policy.scores:  # of the layers that are still full
        steps.append(AverageRetainingHeads())
    return steps
