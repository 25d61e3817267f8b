"""What all eviction policies share: the view of a layer's cache, and the selection itself.

Everything here is branch-free tensor code, traced into the `evict` programs. Ties are broken by
comparisons and sums, never by the order in which some `topk` returns equal numbers: that order is
the lower index in ONNX and unspecified in PyTorch. **Of entries that tie, the newer survives.**
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec
import torch
from torch import Tensor

from lcc.errors import ConfigError
from lcc.passes.policies.entry_scores import EntryScore


class NoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a policy that has none."""


@dataclass(frozen=True)
class Entries:
    """One layer's cache at an eviction.

    key, value   [Hkv, S, D]  float32, keys as stored (rotated)
    slot         [S]          int64, 0 .. S-1
    valid        [S]          bool, slots in use
    protected    [S]          bool, slots in use that survive whatever their rank
    budget       entries to keep per KV head; a symbolic size while a program is exported
    scores       name -> [Hkv, S] float32, those that the policy lists
    """

    key: Tensor
    value: Tensor
    slot: Tensor
    valid: Tensor
    protected: Tensor
    budget: int
    scores: Mapping[str, Tensor]

    def score(self, entry_score: EntryScore) -> Tensor:
        """[Hkv, S] float32, of those that the policy lists in `scores`."""
        if entry_score.name not in self.scores:
            raise ConfigError(f"the policy reads {entry_score.name}, which `scores` does not list")
        return self.scores[entry_score.name]

    def guard(self, rank: Tensor) -> Tensor:
        """`rank` [Hkv, S] with protected entries above all others, and empty slots below.

        A policy's infinities are the largest and the lowest number, and no number is the lowest.
        """
        limits = torch.finfo(rank.dtype)
        rank = rank.masked_fill(rank.isnan(), limits.min).clamp(limits.min, limits.max)
        return rank.masked_fill(self.protected, torch.inf).masked_fill(~self.valid, -torch.inf)


def top_mask(rank: Tensor, count: Tensor | int, limit: int) -> Tensor:
    """Mark the `count` highest of each row; of equal ones those further right.

    rank      [Hkv, S]  float32, no NaN
    count     0 .. limit, a number or a one-element int64 tensor
    limit     upper bound of `count`, a size
    returns   [Hkv, S]  bool, `count` True in each row
    """
    best = torch.topk(rank, limit, dim=1).values  # [Hkv, limit] descending
    if isinstance(count, Tensor):
        last = best.index_select(1, (count - 1).clamp(min=0))
    else:
        last = best[:, -1:]  # [Hkv, 1]
    ties = rank == last
    surplus = (rank >= last).sum(1, keepdim=True) - count  # that many of the ties are too many
    return (rank > last) | (ties & (ties.cumsum(1) > surplus))


class EvictionPolicy(ABC):
    """Which entries of a full cache survive.

    name        what the user types
    Options     a frozen msgspec struct with the policy's own options and their defaults
    scores      entry scores that `rank` reads
    queries     whose attention makes the scores "attention" and "agreed": the catalyst prompt's,
                the newest tokens' before the eviction, every token's; None = no query's
    query_pool  how the attention of several queries becomes one number
    group_pool  how the attention of the query heads of one KV head becomes one number
    decay       share of an entry's earlier attention that is added to its new one
    evicts      False: the cache may only grow, and there is no evict program
    heads       whether trained retaining heads (`lcc.sources.heads`) say what entries are worth.
                Where they may, __init__ takes `with_heads`: whether they are given
    tail_size   the last cycle of a text (where the reader is told that it ends) keeps, of the
                newest entries, only those of the last tail_size tokens of the text, in place of the
                cache's recent_size; None = recent_size, as in every cycle
    catalyst    the catalyst prompt: text, or the word "beginning"; None = the policy runs none
    agrees      it keeps the same tokens in all KV heads and layers, by entry scores that are one
                number a token, and reads no key or value: what it evicts can go to an archive
    """

    name: ClassVar[str]
    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    scores: tuple[EntryScore, ...] = ()
    queries: Literal["catalyst", "newest", "all"] | None = None
    query_pool: Literal["sum", "max"] = "sum"
    group_pool: Literal["mean", "max"] = "mean"
    decay: float = 0.0
    evicts: ClassVar[bool] = True
    heads: ClassVar[Literal["never", "may", "must"]] = "never"
    tail_size: int | None = None
    agrees: ClassVar[bool] = False

    def __init__(self, options: msgspec.Struct) -> None:
        self.options: Any = options

    @property
    def catalyst(self) -> str | None:
        """What is run over the full cache; see the class."""
        return self.options.catalyst if self.queries == "catalyst" else None

    @abstractmethod
    def rank(self, entries: Entries) -> Tensor:
        """How much each entry is worth, [Hkv, S], compared in float32: the higher survives.

        What it says of empty and of protected slots does not matter. Entries that it calls no
        number (NaN) go first.
        """

    def select(self, entries: Entries) -> Tensor:
        """The slots kept in each head, [Hkv, budget] int64 ascending.

        Needs more than `budget` slots in use and at most `budget` protected ones.

        Raises:
            ConfigError: `rank` gave something else than a number for each entry.
        """
        rank = self.rank(entries)
        heads, slots = entries.key.shape[:2]
        shape = tuple(rank.shape) if isinstance(rank, Tensor) else type(rank).__name__
        if shape != (heads, slots):
            raise ConfigError(
                f"policy {self.name}: rank() gave {shape}, wanted a tensor ({heads}, {slots}): "
                "a number for each entry of each KV head"
            )
        keep = top_mask(entries.guard(rank.float()), entries.budget, entries.budget)
        # Slots counted from the end, so that the largest come first and an empty place is 0.
        from_end = torch.where(keep, slots - entries.slot, 0)
        return slots - torch.topk(from_end, entries.budget, dim=1).values
