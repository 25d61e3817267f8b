"""The program `evict`: keep the best entries of a full layer, and close the ranks; no weights."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcc.errors import ConfigError, LccError, first_line
from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.policies import Entries, EntryScore, EvictionPolicy
from lcc.passes.programs.compact import Turn, gather_rows
from lcc.passes.programs.noise import noise
from lcc.passes.rotation import Rotation

CACHE = ("key", "value", "token_position")
COUNTERS = ("used", "kept", "tokens_read", "protected", "left", "layer", "seed")


@dataclass(frozen=True)
class Protection:
    """What survives whatever its rank.

    sink_size       first entries
    recent_size     newest entries
    tail_size       of the text's last cycle, newest tokens of the text; None = recent_size
    """

    sink_size: int
    recent_size: int
    tail_size: int | None = None


class Evict(nn.Module):
    """Keep `budget` entries of each KV head, in token order, in slots 0 .. budget-1.

    key, value      [1, Hkv, S, D]  float32; keys rotated; no value where it is the key
    token_position  [Hkv, S] int64  of slots 0 .. kept-1; those behind them follow one another
    used            [1] int32       entries held, more than `budget`
    kept            [1] int32       of them, those that the last cycle left
    tokens_read     [1] int64       tokens of the text read so far
    protected       [1] int32       leading slots that are protected, besides the sinks
    left            [1] int32       tokens of the text still to be read, where this is its last
                                    cycle; otherwise -1
    layer, seed     [1] int32       of random numbers
    new_slots       [budget] int64  0 .. budget-1; its length is the budget
    and of each entry score of the policy, float32
    made in a log   [S], of the entries behind `kept`, and <name>_kept [Hkv, S], of the others
    by the step     [S, Hkv]
    by queries      [Hkv, S], or [S] where it is one for all

    gives key_out, value_out, token_position_out, and each score that stays with its entry
    (<name>_kept_out, or <name>_out), in the shapes of the inputs; what lies behind slot budget-1
    means nothing. A key turns from the angle of its old slot to that of its new one, where there is
    a rotation and positions are contiguous; an entry that does not move is untouched, bit for bit.
    """

    def __init__(
        self,
        policy: EvictionPolicy,
        protection: Protection,
        rotation: Rotation | None = None,
        *,
        shared: bool = False,
    ) -> None:
        """Keep what it works with.

        rotation    None under absolute positions and for layers without rotary embedding
        shared      the value of an entry is its key
        """
        super().__init__()
        self.policy, self.protection, self.turn = policy, protection, Turn(rotation)
        self.moved = tuple(each for each in CACHE if not (shared and each == "value"))
        self.names = [*self.moved, *COUNTERS, "new_slots", *score_inputs(policy)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs in the order of `names`."""
        given = dict(zip(self.names, inputs, strict=True))
        key, new_slots = given["key"], given["new_slots"]
        value = given.get("value", key)
        budget, slot = new_slots.shape[0], torch.arange(key.shape[2])
        position, scores = self._known(given, slot)
        valid = slot < given["used"]
        protected = valid & self._protected(given, slot, budget)
        entries = Entries(key[0], value[0], slot, valid, protected, budget, scores)
        stays = self.policy.select(entries)  # [Hkv, budget]
        kept_key = self.turn(gather_rows(key, stays), stays - new_slots)
        results = [torch.cat((kept_key, key[0, :, budget:]), dim=1)[None]]
        if "value" in given:
            kept_value = gather_rows(value, stays)
            results.append(torch.cat((kept_value, value[0, :, budget:]), dim=1)[None])
        results.append(torch.cat((position.gather(1, stays), position[:, budget:]), dim=1))
        for each in stored_scores(self.policy):
            old = scores[each.name]
            new = torch.cat((old.gather(1, stays), old[:, budget:]), dim=1)
            results.append(new.transpose(0, 1) if each.made_by == "step" else new)
        return tuple(results)

    def _known(self, given: dict[str, Tensor], slot: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Token positions [Hkv, S] int64, and each entry score [Hkv, S]."""
        counted = slot - given["used"] + given["tokens_read"]
        position = torch.where(slot < given["kept"], given["token_position"], counted)
        scores = {
            each.name: self._score(each, given, slot, position) for each in self.policy.scores
        }
        return position, scores

    def _score(
        self, each: EntryScore, given: dict[str, Tensor], slot: Tensor, position: Tensor
    ) -> Tensor:
        """An entry score [Hkv, S] of all entries."""
        if each.made_by == "position":
            return noise(position, given["layer"], given["seed"])
        made = given[each.name]
        if each.made_by == "log":
            return torch.where(slot < given["kept"], given[f"{each.name}_kept"], made)
        if each.made_by == "step":
            return made.transpose(0, 1)
        return made.expand(position.shape[0], -1) if each.for_all else made

    def _protected(self, given: dict[str, Tensor], slot: Tensor, budget: int) -> Tensor:
        """[S] bool: at the beginning, and among the newest."""
        sizes, used, left = self.protection, given["used"], given["left"]
        prefix = given["protected"].clamp(min=sizes.sink_size)
        recent = torch.full_like(used, sizes.recent_size)
        if sizes.tail_size is not None:
            tail = torch.minimum((sizes.tail_size - left).clamp(min=0), budget - prefix)
            recent = torch.where(left < 0, recent, tail)
        return (slot < prefix) | (slot >= used - recent)


class EvictOldest(Evict):
    """For a layer with a window of the model's own: what counts is the newest entries, unbroken.

    Of a window larger than the budget the newest `budget` entries are left, as of any full layer;
    nothing at the beginning is protected.
    """

    def _protected(self, given: dict[str, Tensor], slot: Tensor, budget: int) -> Tensor:
        return slot >= given["used"] - self.protection.recent_size


def score_inputs(policy: EvictionPolicy) -> list[str]:
    """Names of the inputs that hold the entry scores of a policy."""
    names = []
    for each in policy.scores:
        if each.made_by != "position":
            names += [each.name, f"{each.name}_kept"] if each.made_by == "log" else [each.name]
    return names


def stored_scores(policy: EvictionPolicy) -> list[EntryScore]:
    """Entry scores that stay with their entries from one cycle to the next."""
    return [
        each
        for each in policy.scores
        if each.made_by in ("log", "step") or (each.made_by == "queries" and policy.decay > 0)
    ]


def stored_name(each: EntryScore) -> str:
    """The input that holds a stored score of the entries that the last cycle left."""
    return f"{each.name}_kept" if each.made_by == "log" else each.name


def evict_program(
    name: str, evict: Evict, *, kv_heads: int, head_size: int, capacity: int, budget: int
) -> Program:
    """Export `evict`; capacity and budget are sizes to trace with, it takes any others.

    Raises:
        ConfigError: the policy's `rank` cannot be traced.
    """
    inputs = _inputs(evict, kv_heads, head_size, capacity, budget)
    outputs = [
        *(Port(f"{each}_out", Role(each)) for each in evict.moved),
        *(
            Port(f"{stored_name(each)}_out", Role.ENTRY_SCORE)
            for each in stored_scores(evict.policy)
        ),
    ]
    try:
        return export(evict, (name,), inputs, outputs)
    except LccError:
        raise
    except Exception as error:  # torch.export raises many types, and the policy its own
        raise ConfigError(
            f"policy {evict.policy.name}: rank() cannot be traced: {first_line(error)}; wanted "
            "tensor code that branches on no value"
        ) from error


def _inputs(evict: Evict, kv_heads: int, head_size: int, capacity: int, budget: int) -> list[Input]:
    policy = evict.policy
    slots = "slots", torch.export.Dim("slots", min=8)
    count = "budget", torch.export.Dim("budget", min=1)
    cache = torch.zeros(1, kv_heads, capacity, head_size)
    rows, one = torch.zeros(kv_heads, capacity), torch.zeros(1, dtype=torch.int32)
    inputs = [
        Input(Port("key", Role.KEY), cache, {2: slots}),
        *(
            Input(Port("value", Role.VALUE), cache.clone(), {2: slots})
            for each in evict.moved
            if each == "value"
        ),
        Input(Port("token_position", Role.TOKEN_POSITION), rows.long(), {1: slots}),
        *(
            Input(Port(each, Role.COUNTER), one.long() if each == "tokens_read" else one.clone())
            for each in COUNTERS
        ),
        Input(Port("new_slots", Role.SLOTS), torch.arange(budget), {0: count}),
    ]
    return inputs + score_ports(policy, kv_heads, capacity, slots)


def score_ports(
    policy: EvictionPolicy, kv_heads: int, capacity: int, slots: tuple[str, Any]
) -> list[Input]:
    """The inputs that `score_inputs` names; `slots`: what their size is called."""
    rows, inputs = torch.zeros(kv_heads, capacity), list[Input]()
    for each in policy.scores:
        port = Port(each.name, Role.ENTRY_SCORE)
        if each.made_by == "log":
            kept = Port(f"{each.name}_kept", Role.ENTRY_SCORE)
            inputs.append(Input(port, torch.zeros(capacity), {0: slots}))
            inputs.append(Input(kept, rows.clone(), {1: slots}))
        elif each.made_by == "step":
            inputs.append(Input(port, torch.zeros(capacity, kv_heads), {0: slots}))
        elif each.for_all:
            inputs.append(Input(port, torch.zeros(capacity), {0: slots}))
        elif each.made_by == "queries":
            inputs.append(Input(port, rows.clone(), {1: slots}))
    return inputs
