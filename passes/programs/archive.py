"""What a cycle is about to evict, as rows of an archive: the programs `leave` and `archive`.

Both are of policies that agree on tokens over all heads and layers (`EvictionPolicy.agrees`), so
that an archive has one row a token. No weights.
"""

import torch
from torch import Tensor, nn

from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.policies import Entries, EntryScore, EvictionPolicy
from lcc.passes.policies.entry_scores import NLL
from lcc.passes.programs.compact import Turn, gather_rows
from lcc.passes.programs.evict import (
    CACHE,
    COUNTERS,
    Evict,
    Protection,
    score_inputs,
    score_ports,
)
from lcc.passes.rotation import Rotation


def archived_scores(policy: EvictionPolicy) -> list[EntryScore]:
    """Entry scores that an archived token takes along: those that stay with an entry."""
    return [each for each in policy.scores if each.made_by == "log"]


def knows_likelihoods(policy: EvictionPolicy) -> bool:
    """Whether an archived token takes its negative log likelihood along."""
    return NLL in archived_scores(policy)


class Leave(Evict):
    """The entries that an eviction would drop, and the archive does not have.

    The inputs are those of `Evict` without keys and values, and
    archived_to     [1] int64   all tokens of the text before this one are in the archive
    everything      [1] int32   1: all entries leave, for they are about to be chosen anew; else 0

    gives
    leaving     [S] int64   their slots, ascending, in the first `count` places; then any
    count       [1] int32
    position    [S] int64   their token positions; and <score>_out [S] of each that they take along
    """

    def __init__(self, policy: EvictionPolicy, protection: Protection) -> None:
        super().__init__(policy, protection)
        more = ("archived_to", "everything", "new_slots")
        self.names = [CACHE[2], *COUNTERS, *more, *score_inputs(policy)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs in the order of `names`."""
        given = dict(zip(self.names, inputs, strict=True))
        for name in given:  # one head stands for all
            if name == "token_position" or name.endswith("_kept"):
                given[name] = given[name][:1]
        slots, budget = given["token_position"].shape[1], given["new_slots"].shape[0]
        slot = torch.arange(slots)
        position, scores = self._known(given, slot)
        valid = slot < given["used"]
        protected = valid & self._protected(given, slot, budget)
        nothing = torch.zeros(1, slots, 1)
        entries = Entries(nothing, nothing, slot, valid, protected, budget, scores)
        stays = self.policy.select(entries)[0]  # [budget]
        kept = torch.zeros(slots).scatter_add(0, stays, torch.ones(budget))
        kept = kept * (1 - given["everything"])
        leaves = valid & (kept == 0) & (position[0] >= given["archived_to"])
        # Slots counted from the end, so that the largest come first and an empty place is 0.
        from_end = torch.where(leaves, slots - slot, 0)
        order = torch.topk(from_end[None], slots, dim=1).values[0]
        leaving = torch.where(order > 0, slots - order, 0)
        return (
            leaving,
            leaves.sum(0, keepdim=True).to(torch.int32),
            position[0].index_select(0, leaving),
            *(
                scores[each.name][0].index_select(0, leaving)
                for each in archived_scores(self.policy)
            ),
        )


class ArchiveRows(nn.Module):
    """The keys and values of what leaves a layer, one row a token.

    key, value  [1, Hkv, S, D]  float32; keys rotated
    leaving     [n] int64       slots

    gives archived_key and archived_value [n, Hkv, D]; keys without the rotation of their slot.
    Without a value where that is the key.
    """

    def __init__(self, rotation: Rotation | None = None) -> None:
        """`rotation` is None under absolute positions and for layers without rotary embedding."""
        super().__init__()
        self.turn = Turn(rotation)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Key, value where there is one, and what leaves; see the class."""
        key, *values, leaving = inputs
        slots = leaving[None].expand(key.shape[1], -1)
        unturned = self.turn(gather_rows(key, slots), slots)
        rows = (unturned, *(gather_rows(value, slots) for value in values))
        return tuple(each.transpose(0, 1) for each in rows)


def leave_program(
    policy: EvictionPolicy, protection: Protection, *, kv_heads: int, capacity: int, budget: int
) -> Program:
    """Export `Leave`; capacity and budget are sizes to trace with, it takes any others."""
    slots = "slots", torch.export.Dim("slots", min=8)
    one = torch.zeros(1, dtype=torch.int32)
    long = ("tokens_read", "archived_to")
    module = Leave(policy, protection)
    inputs = [
        Input(
            Port("token_position", Role.TOKEN_POSITION),
            torch.zeros(kv_heads, capacity, dtype=torch.int64),
            {1: slots},
        ),
        *(
            Input(Port(each, Role.COUNTER), one.long() if each in long else one.clone())
            for each in (*COUNTERS, "archived_to", "everything")
        ),
        Input(
            Port("new_slots", Role.SLOTS),
            torch.arange(budget),
            {0: ("budget", torch.export.Dim("budget", min=1))},
        ),
        *score_ports(policy, kv_heads, capacity, slots),
    ]
    outputs = [
        Port("leaving", Role.KEPT),
        Port("count", Role.COUNTER),
        Port("archived_position", Role.ARCHIVED),
        *(Port(f"archived_{each.name}", Role.ARCHIVED) for each in archived_scores(policy)),
    ]
    return export(module, ("leave",), inputs, outputs)


def archive_program(
    name: str,
    rotation: Rotation | None,
    *,
    entry: tuple[str, ...] = ("key", "value"),
    kv_heads: int,
    head_size: int,
    capacity: int,
) -> Program:
    """Export `ArchiveRows` for layers of one shape; `entry`: key, and value where it is another."""
    slots = "slots", torch.export.Dim("slots", min=8)
    rows = "leaving", torch.export.Dim("leaving", min=1)
    cache = torch.zeros(1, kv_heads, capacity, head_size)
    inputs = [
        *(Input(Port(each, Role(each)), cache.clone(), {2: slots}) for each in entry),
        Input(Port("leaving", Role.KEPT), torch.arange(8), {0: rows}),
    ]
    outputs = [Port(f"archived_{each}", Role.ARCHIVED) for each in entry]
    return export(ArchiveRows(rotation), (name,), inputs, outputs)
