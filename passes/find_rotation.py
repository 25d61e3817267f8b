"""Factor the rotary embedding out of a query or key by following what depends on position_ids.

A rotated key is computed from the key and from tensors that depend on positions alone (cosines and
sines, however they are spelled). The nodes in between are the rotation. What it does is read off by
running it on unit vectors, so that any spelling, scaling, partial or interleaved form is handled by
what it computes, and anything that is not a rotation of pairs is refused.
"""

from dataclasses import dataclass, replace

import torch
from torch import fx

from lcc.errors import PassError
from lcc.passes.graph import ModelGraph, ancestors, aten, evaluate, is_call, shape
from lcc.passes.position_table import position_table

_PROBES = (1, 1009)  # positions at which the rotation is looked at, or the last of its table
TOLERANCE = 1e-5
_LINEAR = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.neg.default,
    aten.cat.default,
    aten.stack.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.transpose.int,
    aten.permute.default,
    aten.expand.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten._to_copy.default,
    aten.view_as_complex.default,
    aten.view_as_real.default,
}


@dataclass(frozen=True)
class FoundRotation:
    """How a rotated tensor comes from an unrotated one.

    source      the unrotated tensor, [1, H, Q, D] or [1, Q, H, D]
    size        R, channels that turn; the rest pass
    scale       length of a rotated unit vector (an attention factor, as in YaRN); 1 = pure
    shuffled    pairs are neighbours before it and halves behind it (DeepSeek V3): where query and
                key are alike in that, they may as well stay neighbours
    """

    source: fx.Node
    rotated: fx.Node
    size: int
    interleaved: bool
    scale: float
    shuffled: bool = False


def _is_linear(node: fx.Node) -> bool:
    return node.op == "call_function" and (
        node.target in _LINEAR or getattr(node.target, "__name__", "") == "getitem"
    )


def source_of(rotated: fx.Node, positions: set[fx.Node], texts: set[fx.Node]) -> fx.Node | None:
    """The one node that everything rotated comes from; None if positions never enter."""
    region, stack = [], [rotated]
    while stack:
        node = stack.pop()
        if node in texts and node not in region and _is_linear(node):
            region.append(node)
            stack.extend(node.all_input_nodes)
    order = {node: i for i, node in enumerate(rotated.graph.nodes)}
    turned: set[fx.Node] = set()
    for node in sorted(region, key=order.__getitem__):
        if any(i in turned or (i in positions and i not in texts) for i in node.all_input_nodes):
            turned.add(node)
    if not turned:
        return None
    frontier = {i for n in turned for i in n.all_input_nodes if i in texts and i not in turned}
    while len(frontier) > 1:
        latest = max(frontier, key=order.__getitem__)
        if not _is_linear(latest):
            raise PassError(
                f"find_attention: {rotated.name} mixes positions with more than one tensor: "
                f"{', '.join(sorted(n.name for n in frontier))}; wanted a rotation of one"
            )
        frontier.remove(latest)
        frontier |= {i for i in latest.all_input_nodes if i in texts}
    return frontier.pop()


def images(
    graph: ModelGraph,
    source: fx.Node,
    rotated: fx.Node,
    positions: torch.Tensor,
    inputs: torch.Tensor,
) -> torch.Tensor:
    """What the rotation at `positions` [Q] makes of `inputs` [Q, D]: [Q, D], all in float64.

    Raises PassError when it does not turn all heads alike.
    """
    heads_first = isinstance(shape(source)[1], int)
    heads = shape(source)[1 if heads_first else 2]
    filled = inputs[None, :, None].expand(1, -1, heads, -1)
    if heads_first:
        filled = filled.transpose(1, 2)
    placeholder = graph.placeholder("position_ids")
    tokens = graph.placeholder("input_ids")
    given = {
        source: filled.contiguous(),
        placeholder: positions[None],
        tokens: torch.zeros(1, len(positions), dtype=torch.int64),
    }
    value = evaluate(graph, rotated, given, double=True)
    every = value[0] if isinstance(shape(rotated)[1], int) else value[0].transpose(0, 1)
    if (error := float((every - every[:1]).abs().max())) > TOLERANCE:
        raise PassError(
            f"find_attention: {rotated.name} does not turn all heads of {source.name} alike (off "
            f"by {error:.2g}); wanted one rotation for all"
        )
    return every[0]


def find_rotation(
    graph: ModelGraph, rotated: fx.Node, positions: set[fx.Node], texts: set[fx.Node]
) -> FoundRotation | None:
    """Take a query or key [1, H, Q, D] apart; None if no position enters it.

    positions   nodes that depend on position_ids
    texts       nodes that depend on input_ids

    Raises PassError when positions enter by something that is not a rotation of pairs of channels.
    """
    source = source_of(rotated, positions, texts)
    if source is None:
        return None
    while not _is_heads(source, shape(rotated)[-1]):
        above = [i for i in source.all_input_nodes if i in texts]
        if not _is_linear(source) or len(above) != 1:
            break
        source = above[0]
    if not _is_heads(source, shape(rotated)[-1]):
        raise PassError(
            f"find_attention: {rotated.name} is rotated from {source.name} of shape "
            f"{list(shape(source))}, wanted [1, H, Q, {shape(rotated)[-1]}]"
        )
    size = shape(rotated)[-1]
    identity = torch.eye(size, dtype=torch.float64)
    rows = position_table(graph)
    for position in _PROBES if rows is None else (1, max(1, min(_PROBES[1], rows - 1))):
        where = torch.full((size,), position)
        matrix = images(graph, source, rotated, where, identity)  # row i: image of unit i
        if position == _PROBES[0]:
            found = _read(matrix, source, rotated)
        _check(_neighbours(matrix) if found.shuffled else matrix, found)
    return found


def _neighbours(matrix: torch.Tensor) -> torch.Tensor:
    """Columns 0, D/2, 1, D/2 + 1, ... of a matrix: what were halves are neighbours."""
    return matrix.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)


def _is_heads(node: fx.Node, dim: int) -> bool:
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):  # parts of one
        return False
    return value.dim() == 4 and value.shape[-1] == dim and value.is_floating_point()


def _read(matrix: torch.Tensor, source: fx.Node, rotated: fx.Node) -> FoundRotation:
    """Pairing, size and scale, from the images of all unit vectors at one position."""
    if _is_shuffled(matrix):
        scale = float(torch.hypot(*matrix[0, [0, len(matrix) // 2]]))
        return FoundRotation(source, rotated, len(matrix), True, scale, shuffled=True)
    partner = int(matrix[0, 1:].abs().argmax()) + 1
    interleaved = partner == 1 and len(matrix) > 2 and bool(matrix[2, 3].abs() > 0)
    if interleaved:
        pairs = matrix.diagonal(1).abs()[::2] > 0
        size = 2 * int(pairs.sum())
    else:
        size = 2 * partner
    scale = float(torch.hypot(matrix[0, 0], matrix[0, partner]))
    return FoundRotation(source, rotated, size, interleaved, scale)


def _is_shuffled(matrix: torch.Tensor) -> bool:
    """Whether channels 0 and 1 are turned into channels 0 and D/2, and no others."""
    half = len(matrix) // 2
    if len(matrix) < 4 or len(matrix) % 2:
        return False
    reached = (matrix[:2].abs() > TOLERANCE).any(0).nonzero().flatten().tolist()
    return half > 1 and reached == [0, half]


def pairs_of(images: torch.Tensor, found: FoundRotation) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [.., R/2] out of the images [.., D] of `unit_input`."""
    if found.interleaved and not found.shuffled:
        return images[..., 0 : found.size : 2], images[..., 1 : found.size : 2]
    half = found.size // 2
    return images[..., :half], images[..., half : found.size]


def unit_input(found: FoundRotation, dim: int) -> torch.Tensor:
    """[D] whose image under the rotation is the cosines and the sines: the first of every pair."""
    unit = torch.zeros(dim)
    if found.interleaved:
        unit[0 : found.size : 2] = 1.0
    else:
        unit[: found.size // 2] = 1.0
    return unit


def _check(matrix: torch.Tensor, found: FoundRotation) -> None:
    """The matrix must be exactly the rotation of pairs that was read from it."""
    dim = len(matrix)
    plain = replace(found, shuffled=False)
    cos, sin = pairs_of(unit_input(found, dim).double() @ matrix, plain)
    expected = torch.eye(dim, dtype=matrix.dtype)
    step, other = (2, 1) if found.interleaved else (1, found.size // 2)
    first = torch.arange(found.size // 2) * step
    expected[first, first] = cos
    expected[first + other, first + other] = cos
    expected[first, first + other] = sin
    expected[first + other, first] = -sin
    error = float((matrix - expected).abs().max())
    lengths = float((torch.hypot(cos, sin) - found.scale).abs().max())
    if error > TOLERANCE or lengths > TOLERANCE:
        raise PassError(
            f"find_attention: {found.rotated.name} depends on positions, but not by a rotation of "
            f"pairs of channels of {found.source.name} (off by {max(error, lengths):.2g})"
        )


def between(found: FoundRotation) -> list[fx.Node]:
    """The nodes from the source (excluded) to the rotated tensor, inputs first."""
    inside = {found.source}
    for node in ancestors(found.rotated):
        if any(i in inside for i in node.all_input_nodes):
            inside.add(node)
    return [n for n in ancestors(found.rotated) if n in inside and n is not found.source]


def position_roots(found: FoundRotation, positions: set[fx.Node]) -> frozenset[fx.Node]:
    """The tensors of positions a rotation reads, above views: equal roots, equal rotation."""
    roots = set()
    for node in between(found):
        for source in node.all_input_nodes:
            if source in positions and source not in between(found):
                roots.add(source)
    views = (
        aten.unsqueeze.default,
        aten.expand.default,
        aten.view.default,
        aten.reshape.default,
    )
    while any(is_call(n, *views) for n in roots):
        roots = {n.args[0] if is_call(n, *views) else n for n in roots}
    return frozenset(roots)
