"""Eviction policies: one short file each, and the programs made of them."""

from collections.abc import Callable

from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.eviction.base import Entries, EvictionPolicy
from lcc.passes.eviction.consensus import Consensus
from lcc.passes.eviction.h2o import H2O
from lcc.passes.eviction.infinipot import InfiniPot
from lcc.passes.eviction.keydiff import KeyDiff
from lcc.passes.eviction.knorm import KNorm
from lcc.passes.eviction.locret import Locret
from lcc.passes.eviction.none import NoEviction
from lcc.passes.eviction.random_control import RandomControl
from lcc.passes.eviction.sink_window import SinkWindow
from lcc.passes.eviction.snapkv import SnapKV

__all__ = ["POLICIES", "Entries", "EvictionPolicy", "make_policy"]

POLICIES: dict[str, type[EvictionPolicy]] = {
    policy.name: policy
    for policy in (
        Consensus,
        InfiniPot,
        Locret,
        SnapKV,
        H2O,
        SinkWindow,
        KeyDiff,
        KNorm,
        RandomControl,
        NoEviction,
    )
}


def make_policy(config: PolicyConfig, *, with_heads: bool = False) -> EvictionPolicy:
    """The policy that `config.name` names; it takes its options from the same `config`.

    with_heads      retaining heads are given: the policy goes by them, if it can do without
    """
    if config.name not in POLICIES:
        raise ConfigError(f"policy is {config.name!r}, wanted one of {', '.join(POLICIES)}")
    policy = POLICIES[config.name]
    build: Callable[..., EvictionPolicy] = policy
    return build(config, with_heads=with_heads) if policy.heads == "may" else build(config)
