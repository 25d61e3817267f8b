"""What kernels of `lcc::linear_attention` know of it when they are compiled, and are given."""

from dataclasses import dataclass
from typing import Any, Literal

from lcc.targets.tvm_cpu.tir import parameter, script

Decay = Literal["head", "channel"]


def decay_of(channels: int) -> Decay:
    """Of a head where there is one number for it, else of each row of its state."""
    return "head" if channels == 1 else "channel"


@dataclass(frozen=True)
class Recurrence:
    """A recurrence of one layer.

    heads, groups   H and G: a query and a key are for H / G heads that follow one another
    keys, values    K and V: sizes of the state of a head
    decay           of a head, or of each of its K rows; None = all stays
    beta            whether a value replaces what the state said, or is added
    """

    heads: int
    groups: int
    keys: int
    values: int
    scale: float
    decay: Decay | None = None
    beta: bool = False

    @property
    def repeats(self) -> int:
        """Heads of one query."""
        return self.heads // self.groups


@dataclass(frozen=True)
class Arguments:
    """Buffers of the kernel, and the tokens of a call; see `linear_attention`."""

    length: Any
    q: Any
    k: Any
    v: Any
    decay: Any
    beta: Any
    state: Any
    out: Any


def arguments(rule: Recurrence) -> Arguments:
    """The parameters of the kernel that is being built."""
    length, heads = script().int64(), rule.heads
    q, k = (parameter(name, (1, length, rule.groups, rule.keys)) for name in "qk")
    v = parameter("v", (1, length, heads, rule.values))
    channels = rule.keys if rule.decay == "channel" else 1
    decay = parameter("decay", (1, length, heads, channels)) if rule.decay else None
    beta = parameter("beta", (1, length, heads)) if rule.beta else None
    state = parameter("state", (1, heads, rule.keys, rule.values))
    out = parameter("out", (1, length, heads, rule.values))
    return Arguments(length, q, k, v, decay, beta, state, out)
