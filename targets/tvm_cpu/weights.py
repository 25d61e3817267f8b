"""The weights of all programs: each distinct tensor once in one file, packed where it pays."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from lcc.artifact.weights_index import ALIGNMENT, StoredTensor
from lcc.config import Precision
from lcc.ir.lazy_tensor import blocks, key_of, whole
from lcc.ir.program import HEAD, Program
from lcc.targets.low_bits import BLOCK
from lcc.targets.tvm_cpu import block_products, byte_products
from lcc.targets.tvm_cpu.expert_weights import down_shape, pack_down, pack_up, up_shape
from lcc.targets.tvm_cpu.matmul import pack, packed_shape
from lcc.targets.tvm_cpu.tir import Tiles

LOWERED = 32  # least size of both sides of a matrix that is stored in fewer bits
_INLINE_BYTES = 1024  # smaller constants stay in the library, where they can be computed with
# operator -> (place of the weight among its arguments, whether it is [K, N])
PRODUCTS = {
    "aten.linear.default": (1, False),
    "aten.addmm.default": (2, True),
    "aten.mm.default": (1, True),
    "aten.matmul.default": (1, True),
}
_TABLE = "aten.embedding.default"
_EXPERTS = "lcc.experts.default"
_UP, _DOWN, _UP_BIAS, _DOWN_BIAS = 3, 4, 5, 6  # where it has them; the last is not packed


class Layout(StrEnum):
    """How a weight lies in the file, if not as the model has it; see `matmul` and `experts`."""

    PACKED = "packed"  # of [N, K]
    TURNED = "turned"  # of [K, N]
    UP = "up"  # of the first product of experts: one half, then the other
    UP_IN_TURN = "up in turn"  # the same of a row of each in turn
    UP_BIAS = "up bias"
    UP_BIAS_IN_TURN = "up bias in turn"
    DOWN = "down"  # of the second one; of the first one and its bias, where there is no gate


class Rounding(StrEnum):
    """How the factor of a product is rounded."""

    ROWS = "rows"  # to 8 bits, a scale for each of its N; see `byte_products`
    BLOCKS_8 = "blocks of 8 bits"  # a scale for each 32 of its K; see `block_products`
    BLOCKS_4 = "blocks of 4 bits"

    @property
    def bits(self) -> int:
        """Of a level."""
        return 4 if self is Rounding.BLOCKS_4 else 8


_FACTORS = (Layout.PACKED, Layout.TURNED)
_IN_TURN = (Layout.UP_IN_TURN, Layout.UP_BIAS_IN_TURN)


@dataclass(frozen=True)
class Weight:
    """One parameter of a program.

    name        of its node
    tensor      as the model has it
    layout      how it lies in the file; None = as it is
    rounding    of the factor of a product; None = it is float32
    """

    name: str
    tensor: torch.Tensor
    layout: Layout | None = None
    rounding: Rounding | None = None

    @property
    def sizes(self) -> tuple[int, int] | None:
        """[N, K] of the factor of a product; None = it is none."""
        if self.layout not in _FACTORS:
            return None
        n, k = self.tensor.shape
        return (k, n) if self.layout == Layout.TURNED else (n, k)

    @property
    def dtype(self) -> str:
        """Of what the file holds."""
        return "int32" if self.rounding else str(self.tensor.dtype).removeprefix("torch.")

    def shape(self, tiles: Tiles) -> tuple[int, ...]:
        """Of what the file holds."""
        sizes = tuple(self.tensor.shape)
        if self.layout is None:
            return sizes
        if self.sizes is not None:
            if self.rounding is None:
                return packed_shape(*self.sizes, tiles)
            if self.rounding is Rounding.ROWS:
                return byte_products.packed_shape(*self.sizes, tiles)
            return block_products.packed_shape(*self.sizes, tiles, bits=self.rounding.bits)
        packed = down_shape if self.layout == Layout.DOWN else up_shape
        return packed(sizes if len(sizes) == 3 else (*sizes, 1), tiles)

    def parts(self, tiles: Tiles) -> Iterator[np.ndarray]:
        """What the file holds, one part after the other: of a lazy weight a few tiles at a time.

        Of one with a layout.
        """
        if self.layout == Layout.PACKED:
            columns = tiles.byte_columns if self.rounding is Rounding.ROWS else tiles.columns
            for rows in _in_tiles(self.tensor, columns):
                yield self._packed(rows, tiles)
        else:
            yield self._whole(tiles)

    def _packed(self, rows: np.ndarray, tiles: Tiles) -> np.ndarray:
        """Some rows of [N, K]."""
        if self.rounding is None:
            return pack(rows, tiles)
        if self.rounding is Rounding.ROWS:
            return byte_products.pack(rows, tiles)
        return block_products.pack(rows, tiles, bits=self.rounding.bits)

    def _whole(self, tiles: Tiles) -> np.ndarray:
        data = whole(self.tensor).detach().numpy()
        if self.layout == Layout.TURNED:
            return self._packed(data.T, tiles)
        data = data if data.ndim == 3 else data[..., None]
        if self.layout == Layout.DOWN:
            return pack_down(data, tiles)
        return pack_up(data, tiles, interleaved=self.layout in _IN_TURN)


def _in_tiles(tensor: torch.Tensor, columns: int) -> Iterator[np.ndarray]:
    """The rows of a weight, in blocks of a multiple of `columns`, but for the last one."""
    left = np.empty((0, *tensor.shape[1:]), np.float32)
    for block in blocks(tensor):
        rows = np.concatenate([left, block.detach().numpy()])
        count = len(rows) // columns * columns
        if count:
            yield rows[:count]
        left = rows[count:].copy()
    if len(left):
        yield left


def weights_of(programs: list[Program], precision: Precision = "fp32") -> dict[str, list[Weight]]:
    """File stem of each program -> its weights, in the order of its parameters.

    A tensor is packed if some program multiplies by it, and every one reads it as a factor of a
    product in one direction, or as an embedding: then both read one copy.
    """
    uses: dict[Any, set[Layout | None]] = {}
    tables = set()  # what tokens are looked up in, or what gives the logits
    for program in programs:
        for node, tensor in _parameters(program.exported):
            uses.setdefault(_key(tensor), set()).update(_uses(node, tensor))
            if HEAD in program.names or any(str(user.target) == _TABLE for user in node.users):
                tables.add(_key(tensor))
    found = {}
    for program in programs:
        weights = []
        for node, tensor in _parameters(program.exported):
            of_it, is_table = uses[_key(tensor)], _key(tensor) in tables
            layout = next(iter(of_it)) if len(of_it) == 1 else None
            if is_table and not of_it and tensor.dtype == torch.float32 and precision != "fp32":
                layout = Layout.PACKED  # an embedding that is nothing else
            weight = Weight(node.name, tensor, layout)
            rounding = _rounding(weight.sizes, precision, is_table=is_table)
            if rounding is None and not of_it:
                weight = replace(weight, layout=None)
            weights.append(replace(weight, rounding=rounding))
        found[program.file_stem] = weights
    return found


def _rounding(
    sizes: tuple[int, int] | None, precision: Precision, *, is_table: bool
) -> Rounding | None:
    """How the factor [N, K] of a product is rounded."""
    if precision == "fp32" or sizes is None or min(sizes) < LOWERED:
        return None
    if precision == "int8" or sizes[1] % BLOCK:
        return Rounding.ROWS
    return Rounding.BLOCKS_8 if is_table else Rounding.BLOCKS_4


def _key(tensor: torch.Tensor) -> tuple:
    """What two weights have in common that are one."""
    return key_of(tensor), tuple(tensor.shape), tensor.stride()


def _uses(node: fx.Node, tensor: torch.Tensor) -> set[Layout | None]:
    """The layouts in which its users want a weight; None = as it is."""
    found: set[Layout | None] = set()
    for user in node.users:
        name = str(user.target)
        place, turned = PRODUCTS.get(name, (-1, False))
        plain = tensor.dtype == torch.float32 and user.args.count(node) == 1
        if place >= 0 and user.args[place] is node and plain and tensor.dim() == 2:
            found.add(Layout.TURNED if turned else Layout.PACKED)
        elif name == _EXPERTS and plain:
            found.add(_of_experts(user, user.args.index(node)))
        elif not (name == _TABLE and user.args[0] is node):
            found.add(None)
    return found


def weights_of_experts(graph: fx.Graph, *, packed: bool = False) -> list[fx.Node]:
    """What all `lcc::experts` take for weights and biases, which may be computed of others.

    packed      without those that lie in the file as the model has them
    """
    calls = [n for n in graph.nodes if n.op == "call_function" and str(n.target) == _EXPERTS]
    places = (_UP, _DOWN, _UP_BIAS) if packed else (_UP, _DOWN, _UP_BIAS, _DOWN_BIAS)
    nodes = [call.args[place] for call in calls for place in places]
    return [node for node in nodes if isinstance(node, fx.Node)]


def _of_experts(call: fx.Node, place: int) -> Layout | None:
    """Of an argument of `lcc::experts`."""
    in_turn = bool(call.args[-1])
    up, down = (call.args[i].meta["val"] for i in (_UP, _DOWN))  # type: ignore[union-attr]
    if up.shape[1] == down.shape[2]:
        return None if place == _DOWN_BIAS else Layout.DOWN
    if place == _UP_BIAS:
        return Layout.UP_BIAS_IN_TURN if in_turn else Layout.UP_BIAS
    first = Layout.UP_IN_TURN if in_turn else Layout.UP
    return {_UP: first, _DOWN: Layout.DOWN}.get(place)


def _parameters(exported: ExportedProgram) -> list[tuple[fx.Node, torch.Tensor]]:
    """Parameters, buffers and constants of a program that are worth a place in the file."""
    nodes = {node.name: node for node in exported.graph.find_nodes(op="placeholder")}
    found = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        tensor = exported.state_dict.get(spec.target)
        if tensor is None:
            tensor = exported.constants[spec.target]
        node = nodes[spec.arg.name]
        packs = any(str(user.target) in (*PRODUCTS, _EXPERTS) for user in node.users)
        if packs or tensor.nbytes >= _INLINE_BYTES:
            found.append((node, tensor))
    return found


class WeightsFile:
    """Writes tensors one after the other, each content once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets: dict[Hashable, int] = {}  # of contents, and of weights that are there
        path.write_bytes(b"")

    def add(self, tensor: torch.Tensor) -> StoredTensor:
        """Store a tensor as it is; one that is in several programs is read once."""
        parts = (block.detach().contiguous().numpy() for block in blocks(tensor))
        dtype = str(tensor.dtype).removeprefix("torch.")
        return self._add((_key(tensor), None), parts, dtype, tensor.shape)

    def add_weight(self, weight: Weight, tiles: Tiles) -> StoredTensor:
        """The same of a weight, in its layout."""
        if weight.layout is None:
            return self.add(weight.tensor)
        key, shape = (_key(weight.tensor), weight.layout), weight.shape(tiles)
        return self._add(key, weight.parts(tiles), weight.dtype, shape)

    def _add(
        self, key: Hashable, parts: Iterable[np.ndarray], dtype: str, shape: Sequence[int]
    ) -> StoredTensor:
        if key not in self.offsets:
            self.offsets[key] = self._write(parts)
        return StoredTensor(offset=self.offsets[key], dtype=dtype, shape=list(shape))

    def _write(self, parts: Iterable[np.ndarray]) -> int:
        """Write an array in parts; returns its offset, or that of one with the same content."""
        digest = hashlib.blake2b()
        with self.path.open("r+b") as file:
            end = file.seek(0, 2)
            file.write(b"\0" * (-end % ALIGNMENT))
            begin = file.tell()
            for part in parts:
                content: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
                digest.update(content)
                file.write(content)  # not tofile: it hides why a disk refused
            known = self.offsets.setdefault(digest.digest(), begin)
            if known != begin:
                file.truncate(end)
        return known


def write_index(path: Path, index: dict[str, list[StoredTensor]]) -> None:
    """Which tensors each program takes, in the order of its parameters."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(index, order="sorted")) + b"\n")
