"""The weights of ONNX models: referred to while a graph is rewritten, read as they are written."""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from torch import Tensor

from lcc.ir.lazy_tensor import LazyTensor
from lcc.ir.stand_ins import StandIns

_INLINE_BYTES = 1024  # smaller constants stay in the graph file
_ALIGNMENT = 4096  # of a tensor in the weights file, so that it can be memory-mapped


def deferred(
    name: str | None,
    key: Hashable,
    shape: Sequence[int],
    dtype: ir.DataType,
    make: Callable[[], np.ndarray],
) -> ir.LazyTensor:
    """A constant whose numbers are made when they are wanted, each time anew.

    key     equal for constants of the same bytes
    """
    made = ir.LazyTensor(
        lambda: ir.tensor(make(), name=name), dtype=dtype, shape=ir.Shape(shape), name=name
    )
    made.meta["key"] = key
    return made


def key_of_constant(tensor: ir.TensorProtocol) -> Hashable:
    """Equal for constants of the same bytes; without a key it equals itself only."""
    return tensor.meta.setdefault("key", object())


def row_blocks(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    """The numbers of a constant, in blocks of whole rows where it is a large weight."""
    yield from tensor.meta.get("blocks", lambda: [tensor.numpy()])()


def refer_to_weights(model: ir.Model, made: StandIns) -> None:
    """Put what stand-ins stand for in their place; numbers of a module are read later, too."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and isinstance(raw := getattr(tensor, "raw", None), Tensor):
            value.const_value = _of_weight(made.meant(raw), tensor)


def _of_weight(weight: Tensor, tensor: ir.TensorProtocol) -> ir.LazyTensor:
    if not isinstance(weight, LazyTensor):
        return deferred(tensor.name, object(), weight.shape, tensor.dtype, tensor.numpy)
    how = tensor.name, weight.key, weight.shape, tensor.dtype
    made = deferred(*how, lambda: weight.whole().numpy())
    made.meta["blocks"] = lambda: (block.numpy() for block in weight.blocks())
    made.meta["rounded"] = weight.rounded
    return made


def _transposed(tensor: ir.LazyTensor, order: Sequence[int], name: str) -> ir.LazyTensor:
    shape = [int(tensor.shape[axis]) for axis in order]
    key = (key_of_constant(tensor), tuple(order))
    made = deferred(name, key, shape, tensor.dtype, lambda: tensor.numpy().transpose(order))
    if tuple(order) == (1, 0):
        made.meta["transpose_of"] = tensor
    return made


def transpose_weights(model: ir.Model) -> None:
    """Store a weight as a product wants it, where nothing else wants it otherwise."""
    graph = model.graph
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" and not node.domain else None
        tensor = None if source is None else source.const_value
        if source is None or not isinstance(tensor, ir.LazyTensor) or len(source.uses()) != 1:
            continue
        order, out = node.attributes.get_ints("perm"), node.outputs[0]
        if out.is_graph_output():
            continue
        name = f"{source.name}_transposed"
        value = ir.Value(
            name=name,
            const_value=_transposed(tensor, order, name),
            shape=out.shape,
            type=out.type,
        )
        graph.register_initializer(value)
        ir.convenience.replace_all_uses_with(out, value)
        graph.remove(node, safe=True)
        del graph.initializers[str(source.name)]


class WeightsFile:
    """The weights file: every distinct tensor once, whichever programs and targets use it."""

    def __init__(self, path: Path) -> None:
        """`path` may hold what another target of the artifact has written."""
        self.path = path
        self.offsets: dict[Hashable, int] = {}
        if not path.exists():
            path.write_bytes(b"")
        for file in path.parent.glob("*.onnx"):  # of another target
            for value in ir.load(file).graph.initializers.values():
                tensor = value.const_value
                if isinstance(tensor, ir.ExternalTensor) and tensor.location == path.name:
                    assert tensor.offset is not None
                    self.offsets[_digest(_content(tensor))] = tensor.offset

    def move_out(self, model: ir.Model) -> None:
        """Replace a model's large constants by references into the file."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _INLINE_BYTES:
                continue
            value.const_value = ir.ExternalTensor(
                self.path.name,
                self._place(tensor),
                tensor.nbytes,
                tensor.dtype,
                shape=tensor.shape,
                name=value.name,
                base_dir=self.path.parent,
            )

    def _place(self, tensor: ir.TensorProtocol) -> int:
        """Where the bytes of a tensor lie; they are written if they are not there."""
        key = tensor.meta.get("key")
        if key in self.offsets:
            return self.offsets[key]
        content = _content(tensor)
        digest = _digest(content)
        if digest not in self.offsets:
            with self.path.open("ab") as file:
                file.seek(0, 2)
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                self.offsets[digest] = file.tell()
                file.write(content)  # not tofile: it hides why a disk refused
        if key is not None:
            self.offsets[key] = self.offsets[digest]
        return self.offsets[digest]


def _content(tensor: ir.TensorProtocol) -> memoryview:
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data


def _digest(content: memoryview) -> bytes:
    return hashlib.blake2b(content).digest()
