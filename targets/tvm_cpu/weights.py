"""The weights of all programs: each distinct tensor once in one file, packed where it pays."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from lcc.artifact.weights_index import ALIGNMENT, StoredTensor
from lcc.ir.program import Program
from lcc.targets.tvm_cpu.matmul import pack, packed_shape
from lcc.targets.tvm_cpu.tir import Tiles

_INLINE_BYTES = 1024  # smaller constants stay in the library, where they can be computed with
# operator -> (place of the weight among its arguments, whether it is [K, N])
PRODUCTS = {
    "aten.linear.default": (1, False),
    "aten.addmm.default": (2, True),
    "aten.mm.default": (1, True),
    "aten.matmul.default": (1, True),
}
_TABLE = "aten.embedding.default"


@dataclass(frozen=True)
class Weight:
    """One parameter of a program.

    name        of its node
    tensor      as the model has it
    turned      how it is packed: None = not at all, True = as [K, N], False = as [N, K]
    """

    name: str
    tensor: torch.Tensor
    turned: bool | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """[N, K], of one that is packed."""
        n, k = self.tensor.shape
        return (k, n) if self.turned else (n, k)

    def shape(self, tiles: Tiles) -> tuple[int, ...]:
        """Of what the file holds."""
        if self.turned is None:
            return tuple(self.tensor.shape)
        return packed_shape(*self.sizes, tiles)

    def array(self, tiles: Tiles) -> np.ndarray:
        """What the file holds."""
        data = self.tensor.detach().numpy()
        if self.turned is None:
            return np.ascontiguousarray(data)
        return pack(data.T if self.turned else data, tiles)


def weights_of(programs: list[Program]) -> dict[str, list[Weight]]:
    """File stem of each program -> its weights, in the order of its parameters.

    A tensor is packed if some program multiplies by it, and every one reads it as a factor of a
    product in one direction, or as an embedding: then both read one copy.
    """
    uses: dict[int, set[bool | None]] = {}
    for program in programs:
        for node, tensor in _parameters(program.exported):
            uses.setdefault(tensor.data_ptr(), set()).update(_uses(node, tensor))
    found = {}
    for program in programs:
        found[program.file_stem] = [
            Weight(node.name, tensor, next(iter(uses[tensor.data_ptr()])))
            if len(uses[tensor.data_ptr()]) == 1
            else Weight(node.name, tensor)
            for node, tensor in _parameters(program.exported)
        ]
    return found


def _uses(node: fx.Node, tensor: torch.Tensor) -> set[bool | None]:
    """In which direction a node is multiplied by; None = it is used otherwise."""
    found: set[bool | None] = set()
    for user in node.users:
        name = str(user.target)
        place, turned = PRODUCTS.get(name, (-1, False))
        if place >= 0 and user.args[place] is node and user.args.count(node) == 1:
            packable = tensor.dim() == 2 and tensor.dtype == torch.float32
            found.add(turned if packable else None)
        elif not (name == _TABLE and user.args[0] is node):
            found.add(None)
    return found


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
        if tensor.nbytes >= _INLINE_BYTES or any(str(u.target) in PRODUCTS for u in node.users):
            found.append((node, tensor))
    return found


class WeightsFile:
    """Writes tensors one after the other, each content once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets: dict[bytes, int] = {}
        path.write_bytes(b"")

    def add(self, array: np.ndarray) -> StoredTensor:
        """Store an array, or find where it is stored."""
        content: Any = array.reshape(-1).view(np.uint8).data
        key = hashlib.blake2b(content).digest()
        if key not in self.offsets:
            with self.path.open("ab") as file:
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                self.offsets[key] = file.tell()
                file.write(content)  # not tofile: it hides why a disk refused
        shape = list(array.shape)
        return StoredTensor(offset=self.offsets[key], dtype=str(array.dtype), shape=shape)


def write_index(path: Path, index: dict[str, list[StoredTensor]]) -> None:
    """Which tensors each program takes, in the order of its parameters."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(index, order="sorted")) + b"\n")
