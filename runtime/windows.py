"""Layers that see their first and newest entries only: how full they are, and what they drop."""

from collections.abc import Sequence
from dataclasses import dataclass

from lcc.artifact import LayerEntry
from lcc.plan import SinkWindow


@dataclass
class Window:
    """All layers of one kind: they are always filled alike.

    name    of the step's input that says how full they are
    slots   entries per KV head that there is room for
    used    entries held: the first of the text, then newest ones without a gap
    base    of them, those that the last compaction left; 0 = nothing was dropped so far
    """

    name: str
    kind: SinkWindow
    slots: int
    layers: list[int]
    used: int = 0
    base: int = 0

    def reset(self) -> None:
        """Hold nothing."""
        self.used = self.base = 0

    def dropped(self) -> int:
        """Entries behind the sinks that no later query sees, nor the last one if read again."""
        kind, last = self.kind, max(0, self.used - 1)
        first_seen = last // kind.block * kind.block - kind.window + kind.block
        return max(0, first_seen - kind.sink)

    def tokens(self, read: int) -> list[range]:
        """Places in the text of the entries held, `read` tokens into it."""
        if self.used == read:
            return [range(read)]
        return [range(self.kind.sink), range(read - self.used + self.kind.sink, read)]


def windows_of(layers: Sequence[LayerEntry]) -> list[Window]:
    """One `Window` for every kind that is not full, in the order of the step's inputs."""
    found: dict[SinkWindow, Window] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer.kind, SinkWindow):
            assert layer.slots is not None, (
                f"layer {i} has no slots; `check` refuses such manifests"
            )
            name = f"used_{len(found) + 1}"
            window = found.setdefault(layer.kind, Window(name, layer.kind, layer.slots, []))
            window.layers.append(i)
    return list(found.values())
