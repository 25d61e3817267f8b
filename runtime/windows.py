"""Layers that see a fixed part of the text: how full they are, and what they drop."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lcc.artifact.manifest import LayerEntry
from lcc.ir.plan import BlockSparse, Full, Sparse
from lcc.runtime.kv_cache import zeros


@dataclass
class Window:
    """All layers of one kind: they are always filled alike.

    number  of the kind, from 1: names the step's inputs
    slots   entries per KV head that there is room for
    heads   KV heads of the layer that has most; a layer with fewer holds what the first ones hold
    used    entries held, in the order of the text
    base    of them, those that the last compaction left; 0 = nothing was dropped so far
    places  [heads, slots] int64, place in the text of the token in each slot
    """

    number: int
    kind: Sparse
    slots: int
    heads: int
    layers: list[int] = field(default_factory=list)
    used: int = 0
    base: int = 0

    def __post_init__(self) -> None:
        self.places = zeros((self.heads, self.slots), np.int64)

    @property
    def buffers(self) -> dict[str, np.ndarray]:
        """Inputs of the step that are always the same array."""
        if not isinstance(self.kind, BlockSparse):
            return {}
        return {f"places_{self.number}": self.places}

    def feeds(self, slot: int) -> dict[str, np.ndarray]:
        """Inputs of a step whose first entry goes into this slot."""
        return {f"used_{self.number}": np.array([slot], np.int32)}

    def place(self, slot: int, first_token: int, count: int) -> None:
        """Note which tokens go into `count` slots."""
        self.places[:, slot : slot + count] = np.arange(first_token, first_token + count)

    def room(self, tokens: int, chunk_size: int) -> int | None:
        """How many tokens may be read before entries are dropped; None = as many as there are.

        Blocks are dropped each time the text has a chunk more, because under contiguous positions
        an entry's angle depends on when: not on how the text was cut into steps.
        """
        return chunk_size - tokens % chunk_size if isinstance(self.kind, BlockSparse) else None

    def is_due(self, tokens: int, chunk_size: int, count: int) -> bool:
        """Whether entries are dropped before a step of `count` tokens is read behind `tokens`.

        Blocks are where there is no room, too: a state may come from a session of larger chunks.
        """
        due = isinstance(self.kind, BlockSparse) and tokens % chunk_size == 0
        return due or self.used + count > self.slots

    @property
    def rewindable(self) -> int:
        """How many of the newest entries can be taken back.

        The last one that stays is read again, for its hidden state; where blocks were dropped
        after it, it would not see what it saw.
        """
        after = self.used - self.base
        return max(0, after - 1) if self.base and isinstance(self.kind, BlockSparse) else after

    def kept(self) -> np.ndarray:
        """[heads, n] int64, ascending: slots of what a query may see, the last one's if read again.

        A head that sees less than another keeps of the rest what is newest.
        """
        held = self.places[:, : self.used]
        heads = np.arange(self.heads)[:, None]
        seen = np.asarray(self.kind.sees(held[:, -1:], held, heads))
        count = int(seen.sum(axis=1).max(initial=0))
        order = np.argsort(seen, axis=1, kind="stable")  # what is not seen first, the oldest first
        return np.sort(order[:, self.used - count :], axis=1)

    def compact(self, kept: np.ndarray) -> None:
        """These slots are all that is held now."""
        count = kept.shape[1]
        self.places[:, :count] = np.take_along_axis(self.places, kept, axis=1)
        self.used = self.base = count

    def reset(self) -> None:
        """Hold nothing."""
        self.used = self.base = 0


def windows_of(layers: Sequence[LayerEntry]) -> list[Window]:
    """One `Window` for every kind that is not full, in the order of the step's inputs."""
    found: dict[Sparse, Window] = {}
    for i, layer in enumerate(layers):
        kind = layer.kind
        if isinstance(kind, Full):
            continue
        assert layer.slots is not None, f"layer {i} has no slots; `check` refuses such manifests"
        if kind not in found:
            heads = max(each.kv_heads for each in layers if each.kind == kind)
            found[kind] = Window(len(found) + 1, kind, layer.slots, heads)
        found[kind].layers.append(i)
    return list(found.values())
