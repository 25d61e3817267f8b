"""The distinct rotary embeddings of a model, each computed once for all layers that share it."""

from dataclasses import dataclass, replace

import torch
from torch import fx

from lcc.errors import PassError
from lcc.passes.attention_scores import through
from lcc.passes.find_rotation import (
    TOLERANCE,
    FoundRotation,
    between,
    find_rotation,
    images,
    pairs_of,
    position_roots,
    source_of,
    unit_input,
)
from lcc.passes.graph import ModelGraph, aten, emit, is_call, shape
from lcc.passes.norm_after_rotation import NormAfter, copied, norm_after_rotation
from lcc.passes.rotation import Rotation


@dataclass(frozen=True)
class Turned:
    """A query or key, taken apart: source -> [norm] -> rotation [-> mul by weight].

    node    where no position enters: all of it
    before  channels in front of those that turn; they are put behind them, as a rotation has its
            own first, which changes no product where query and key do it alike
    """

    node: fx.Node
    found: FoundRotation | None = None
    norm: NormAfter | None = None
    before: fx.Node | None = None

    @property
    def weight(self) -> fx.Node | None:
        """[D] that its numbers are multiplied by behind the rotation."""
        return None if self.norm is None else self.norm.weight


class SharedRotations:
    """The distinct rotations of a model: tables, and the nodes that hold cosines and sines."""

    def __init__(
        self, graph: ModelGraph, positions: set[fx.Node], texts: set[fx.Node], table_size: int
    ) -> None:
        """`positions`, `texts`: nodes that depend on positions only, and on tokens."""
        self.graph, self.positions, self.texts = graph, positions, texts
        self.table_size = table_size
        self.tables: list[Rotation] = []
        self._known: dict[tuple, tuple[int, fx.Node, fx.Node]] = {}

    def read(self, node: fx.Node) -> Turned:
        """Take a query or key apart."""
        if parts := self._parts(node):
            before, turned = parts[0], self.read(parts[1])
            return replace(turned, node=node, before=before)
        norm = norm_after_rotation(self.graph, node, self.positions, self.texts)
        rotated = node if norm is None else norm.rotated
        found = find_rotation(self.graph, rotated, self.positions, self.texts)
        if found is None:
            return Turned(node)
        # As a scale that begins behind the cache. Of one position nothing can be said.
        if norm is None and self.table_size > 1 and self._is_idle(found):
            return Turned(found.source)
        if norm is not None and abs(found.scale - 1) > TOLERANCE:
            raise PassError(
                f"find_attention: {norm.normed.name} is a norm behind a rotation that scales by "
                f"{found.scale:.6g}; wanted one by 1"
            )
        return Turned(node, found, norm)

    def _parts(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """Channels [1, H, Q, ..] that do not turn, and behind them those that do."""
        node = through(node)
        if not is_call(node, aten.cat.default) or len(node.args[0]) != 2:
            return None
        last = node.args[1] if len(node.args) > 1 else 0
        first, second = node.args[0]
        if last not in (-1, 3) or len(shape(node)) != 4:
            return None
        turns = [
            source_of(part, self.positions, self.texts) is not None for part in (first, second)
        ]
        return (first, second) if turns == [False, True] else None

    def _is_idle(self, found: FoundRotation) -> bool:
        """Whether it changes nothing at any position that the cache has."""
        ones = torch.ones(self.table_size, shape(found.rotated)[-1], dtype=torch.float64)
        where = torch.arange(self.table_size)
        made = images(self.graph, found.source, found.rotated, where, ones)
        return bool((made - ones).abs().max() <= TOLERANCE)

    def apply(self, turned: Turned) -> tuple[fx.Node, int]:
        """The token-major rotated tensor without its weight; its rotation's index, -1 = none."""
        found = turned.found
        if found is None:
            return token_major(self.graph.graph, turned.node), -1
        roots = position_roots(found, self.positions)
        key = (
            roots,
            found.size,
            found.interleaved,
            round(found.scale, 6),
            shape(found.rotated)[-1],
        )
        if key not in self._known:
            self._known[key] = self._add(found)
        index, cos, sin = self._known[key]
        source = found.source
        if isinstance(shape(source)[1], int):
            source = token_major(self.graph.graph, source)
        if turned.before is not None:
            parts = [source, token_major(self.graph.graph, turned.before)]
            source = emit(self.graph.graph, aten.cat.default, parts, -1)
        if turned.norm is not None:
            source = copied(self.graph, turned.norm, source)
        call = torch.ops.lcc.rotate.default
        return emit(self.graph.graph, call, source, cos, sin, found.interleaved), index

    def _add(self, found: FoundRotation) -> tuple[int, fx.Node, fx.Node]:
        index, dim = len(self.tables), shape(found.rotated)[-1]
        where = torch.arange(self.table_size)
        unit = unit_input(found, dim)
        repeated = unit.double().expand(self.table_size, dim)
        made = images(self.graph, found.source, found.rotated, where, repeated)
        cos, sin = (t / found.scale for t in pairs_of(made, found))
        if (error := float((torch.hypot(cos, sin) - 1).abs().max())) > TOLERANCE:
            raise PassError(
                f"find_attention: the length of {found.rotated.name} changes with the position (by "
                f"{error:.2g} below {self.table_size}); wanted a rotation"
            )
        angles = self._emit_angles(found, unit)
        made_of = Rotation.between(cos, sin, interleaved=found.interleaved)
        for known, table in enumerate(self.tables):  # of layers that each have a table of their own
            if _equal(table, made_of):
                return (known, *angles)
        self.tables.append(made_of)
        return (index, *angles)

    def _emit_angles(self, found: FoundRotation, unit: torch.Tensor) -> tuple[fx.Node, fx.Node]:
        """Cosines and sines [1, Q, R/2]: the model's own rotation, run on unit vectors."""
        graph = self.graph.graph
        constant = self.graph.constant("unit", unit)
        length = emit(graph, aten.sym_size.int, self.graph.placeholder("position_ids"), 1)
        sizes = list(shape(found.source))
        heads_first = isinstance(sizes[1], int)
        sizes[2 if heads_first else 1] = length
        copies = {found.source: emit(graph, aten.expand.default, constant, sizes)}
        for node in between(found):
            args = fx.node.map_arg(node.args, lambda n: copies.get(n, n))
            kwargs = fx.node.map_arg(node.kwargs, lambda n: copies.get(n, n))
            copies[node] = emit(graph, node.target, *args, **kwargs)
        first_axis = 1 if isinstance(shape(found.rotated)[1], int) else 2
        image = emit(graph, aten.select.int, copies[found.rotated], first_axis, 0)
        if found.interleaved and not found.shuffled:
            parts = [(0, found.size, 2), (1, found.size, 2)]
        else:
            half = found.size // 2
            parts = [(0, half, 1), (half, found.size, 1)]
        cos, sin = (emit(graph, aten.slice.Tensor, image, 2, *part) for part in parts)
        return cos, sin


def _equal(one: Rotation, other: Rotation) -> bool:
    """Whether two rotations turn alike at every position."""
    alike = one.interleaved == other.interleaved and one.cos.shape == other.cos.shape
    return alike and torch.equal(one.cos, other.cos) and torch.equal(one.sin, other.sin)


def token_major(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """[1, H, Q, D] -> [1, Q, H, D], taking a transpose away where there is one."""
    if is_call(node, aten.transpose.int) and set(node.args[1:]) == {1, 2}:
        return node.args[0]
    return emit(graph, aten.transpose.int, node, 1, 2)
