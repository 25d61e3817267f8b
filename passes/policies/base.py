"""What all eviction policies share: the view of a layer's cache, and the selection itself.

Everything here is branch-free tensor code, traced into the `evict` programs. Ties are broken by
comparisons and sums, never by the order in which some `topk` returns equal numbers: that order is
the lower index in ONNX and unspecified in PyTorch. **Of entries that tie, the newer survives.**
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec
import torch
from torch import Tensor

from lcc.artifact.manifest import Queries, Scalar
from lcc.config import PolicyConfig
from lcc.errors import ConfigError


@dataclass(frozen=True)
class Entries:
    """One layer's cache at an eviction.

    key, value   [Hkv, S, D]  float32, keys as stored (rotated)
    slot         [S]          int64, 0 .. S-1
    valid        [S]          bool, slots in use
    protected    [S]          bool, slots in use that survive whatever their rank
    budget       entries to keep per head; a symbolic size while a program is exported
    scalars      name -> [Hkv, S] float32, None for those that the policy does not ask for
    """

    key: Tensor
    value: Tensor
    slot: Tensor
    valid: Tensor
    protected: Tensor
    budget: int
    scalars: dict[str, Tensor | None]

    def scalar(self, name: str) -> Tensor:
        """[Hkv, S] float32, of those that the policy asked for."""
        value = self.scalars.get(name)
        if value is None:
            raise ConfigError(f"the policy reads {name} but does not list it in `scalars`")
        return value

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

    name      what the user types
    scalars   per-entry numbers that `rank` reads: of "attention", "consensus" (attention, the
              mean of all heads and layers), "retaining" (what trained heads say), "novelty",
              "noise", "sentence", in that order
    queries   whose attention makes the scalars `attention` and `consensus`: the catalyst prompt's,
              the last tokens' before the eviction, every token's; None = no query's
    evicts    False: the cache may only grow, and there is no evict program
    heads     whether trained retaining heads say what entries are worth. Where they may,
              __init__ takes `with_heads`: whether they are given
    """

    name: ClassVar[str]
    scalars: tuple[Scalar, ...] = ()
    queries: Queries | None = None
    evicts: ClassVar[bool] = True
    heads: ClassVar[Literal["never", "may", "must"]] = "never"

    alpha: float = 0.5  # where the configuration gives none
    tail_size: int | None = None  # likewise

    def __init__(self, config: PolicyConfig) -> None:
        self.alpha = self.alpha if config.alpha is None else config.alpha
        self.tail_size = self.tail_size if config.tail_size is None else config.tail_size
        self.config = config
        # The manifest says what the programs do, where a policy has settings of its own, too.
        own = ("alpha", "tail_size", "memory", "query_pool", "group_pool")
        settings = {name: getattr(self, name) for name in own}
        self.config = msgspec.structs.replace(config, **settings)

    @property
    def memory(self) -> float:
        """Share of an entry's earlier attention that is added to its new one."""
        return self.config.memory

    @property
    def query_pool(self) -> Literal["sum", "max"]:
        """How the attention of several queries becomes one number."""
        return self.config.query_pool

    @property
    def group_pool(self) -> Literal["mean", "max"]:
        """How the attention of the query heads of one KV head becomes one number."""
        return self.config.group_pool

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
