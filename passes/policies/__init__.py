"""Eviction policies: one short file each, and the programs made of them."""

from collections.abc import Callable
from typing import get_args

from lcc.artifact.manifest import Queries, Scalar
from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.consensus import Consensus
from lcc.passes.policies.h2o import H2O
from lcc.passes.policies.infinipot import InfiniPot
from lcc.passes.policies.keydiff import KeyDiff
from lcc.passes.policies.knorm import KNorm
from lcc.passes.policies.locret import Locret
from lcc.passes.policies.none import NoEviction
from lcc.passes.policies.random_control import RandomControl
from lcc.passes.policies.sink_window import SinkWindow
from lcc.passes.policies.snapkv import SnapKV

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
    made = build(config, with_heads=with_heads) if policy.heads == "may" else build(config)
    _check(made, heads=policy.heads == "must" or (policy.heads == "may" and with_heads))
    return made


def _check(policy: EvictionPolicy, *, heads: bool) -> None:
    """Refuse what nobody would fill: a scalar that stays 0 makes any policy keep the newest."""
    known, reads = get_args(Scalar), set(policy.scalars)
    if len(reads) < len(policy.scalars):
        raise ConfigError(f"policy {policy.name}: scalars {', '.join(policy.scalars)}: one twice")
    for name, wanted in (
        ("queries", (None, *get_args(Queries))),
        ("query_pool", ("sum", "max")),
        ("group_pool", ("mean", "max")),
    ):
        if (value := getattr(policy, name)) not in wanted:
            raise ConfigError(
                f"policy {policy.name}: {name} is {value!r}, wanted one of "
                f"{', '.join(map(repr, wanted))}"
            )
    if unknown := [name for name in policy.scalars if name not in known]:
        raise ConfigError(f"policy {policy.name}: scalar {unknown[0]!r}, wanted {', '.join(known)}")
    attention = reads & {"attention", "consensus"}
    if policy.queries is not None and not attention:
        raise ConfigError(
            f"policy {policy.name}: queries is {policy.queries!r} and no scalar reads their "
            "attention; wanted attention or consensus among the scalars, or queries = None"
        )
    if policy.queries is None and ("attention" in reads or (attention and not heads)):
        raise ConfigError(
            f"policy {policy.name}: scalar {min(attention)} and no queries; wanted queries = "
            "'catalyst', 'recent' or 'all'"
        )
    if "retaining" in reads and not heads:
        raise ConfigError(f"policy {policy.name}: scalar retaining and no heads; wanted --heads")
