"""Eviction policies: one short file each, with its options."""

from collections.abc import Callable
from typing import Any

import msgspec

from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.consensus import Consensus
from lcc.passes.policies.entry_scores import EntryScore
from lcc.passes.policies.h2o import H2O
from lcc.passes.policies.infinipot import InfiniPot
from lcc.passes.policies.keydiff import KeyDiff
from lcc.passes.policies.knorm import KNorm
from lcc.passes.policies.locret import Locret
from lcc.passes.policies.none import NoEviction
from lcc.passes.policies.random_control import RandomControl
from lcc.passes.policies.sink_window import SinkWindow
from lcc.passes.policies.snapkv import SnapKV

__all__ = ["POLICIES", "Entries", "EntryScore", "EvictionPolicy", "make_policy", "options_in_force"]

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
    """The policy that `config.name` names, with its options.

    with_heads      retaining heads are given: the policy goes by them, if it can do without

    Raises:
        ConfigError: no such policy, an option that it does not know, or a value out of range.
    """
    if config.name not in POLICIES:
        raise ConfigError(f"policy is {config.name!r}, wanted one of {', '.join(POLICIES)}")
    policy = POLICIES[config.name]
    options = _options(policy, config.options)
    build: Callable[..., EvictionPolicy] = policy
    made = build(options, with_heads=with_heads) if policy.heads == "may" else build(options)
    _check(made)
    return made


def options_in_force(policy: EvictionPolicy) -> dict[str, Any]:
    """The options of a policy, those by default included; None = not set is left out."""
    values = msgspec.structs.asdict(policy.options)
    return {name: value for name, value in values.items() if value is not None}


def _options(policy: type[EvictionPolicy], given: dict[str, Any]) -> msgspec.Struct:
    """The options of a policy, with what was given in place of the defaults."""
    known = [field.name for field in msgspec.structs.fields(policy.Options)]
    for name in given:
        if name not in known:
            wanted = f"it knows {', '.join(known)}" if known else "it has no options"
            raise ConfigError(f"policy {policy.name}: unknown option {name!r}; {wanted}")
    try:
        return msgspec.convert(given, policy.Options, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise ConfigError(f"policy {policy.name}: {error.__cause__}") from None
        raise ConfigError(f"policy {policy.name}: {error}") from None


def _check(policy: EvictionPolicy) -> None:
    """Refuse a policy that reads what nobody would make: a score of 0 keeps the newest."""
    if len(set(policy.scores)) < len(policy.scores):
        names = ", ".join(score.name for score in policy.scores)
        raise ConfigError(f"policy {policy.name}: scores {names}: one twice")
    for score in policy.scores:
        if not isinstance(score, EntryScore):
            raise ConfigError(
                f"policy {policy.name}: score {score!r}, wanted one of lcc.passes.policies."
                "entry_scores"
            )
    for name, wanted in (
        ("queries", (None, "catalyst", "newest", "all")),
        ("query_pool", ("sum", "max")),
        ("group_pool", ("mean", "max")),
    ):
        if (value := getattr(policy, name)) not in wanted:
            raise ConfigError(
                f"policy {policy.name}: {name} is {value!r}, wanted one of "
                f"{', '.join(map(repr, wanted))}"
            )
    attention = [score.name for score in policy.scores if score.made_by == "queries"]
    if policy.queries is not None and len(attention) != 1:
        raise ConfigError(
            f"policy {policy.name}: queries is {policy.queries!r}, wanted one of the scores "
            f"attention and agreed, got {', '.join(attention) or 'none'}; or queries = None"
        )
    if policy.queries is None and attention:
        raise ConfigError(
            f"policy {policy.name}: score {attention[0]} and no queries; wanted queries = "
            "'catalyst', 'newest' or 'all'"
        )
    if policy.heads == "never" and any(s.name in ("retaining", "expected") for s in policy.scores):
        raise ConfigError(f"policy {policy.name}: reads retaining heads; wanted heads = 'must'")
