"""A weight that is read from its file when something is computed with it, and not kept.

A captured model refers to its weights, and most of what lcc does with a graph asks for their shapes
alone. So a model of any size is specialized in the memory of its largest weight, and a target reads
one weight after the other as it writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lcc.ir.rounded import Rounded
from lcc.ir.weight_reads import KEPT, READS

aten = torch.ops.aten

# Bytes that are read at once. Four times as many take four times as long per byte: the memory of
# larger ones is new each time, and the system clears it first.
BLOCK_BYTES = 1 << 23
# What gives a lazy tensor of lazy ones: loading a checkpoint renames, casts, stacks and cuts.
_LAZY = (
    aten._to_copy.default,
    aten.cat.default,
    aten.clone.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.squeeze.dim,
    aten.stack.default,
    aten.t.default,
    aten.transpose.int,
    aten.unbind.int,
    aten.unsqueeze.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
)
_SAME = (aten.detach.default, aten.alias.default)

Rows = Callable[[int, int], Tensor]


class LazyTensor(torch.Tensor):
    """A tensor whose numbers are read when an operator wants them.

    key     what it is of: two lazy tensors with the same key hold the same numbers
    is_stored   read from a file, not made of other lazy tensors
    rounded what its numbers were rounded to; None = they were not, or in another way
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    key: Hashable
    is_stored: bool
    rounded: Rounded | None
    _read: Rows
    _transposed: LazyTensor | None

    @staticmethod
    def __new__(
        cls,
        shape: torch.Size | tuple[int, ...],
        dtype: torch.dtype,
        read: Rows,
        key: Hashable,
        *,
        is_stored: bool = True,
    ) -> LazyTensor:
        """Nothing is read yet.

        read    gives the rows from one to another, [stop - start, ...], of the first axis; what
                has no axes is given whole
        """
        made = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)
        made._read, made.key, made.is_stored, made._transposed = read, key, is_stored, None
        made.rounded = None
        return made

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows [start, stop) of the first axis, as an ordinary tensor."""
        value = self._read(start, stop)
        if self.is_stored:
            READS.count(value.nbytes)
        return value

    def whole(self) -> Tensor:
        """All numbers, as an ordinary tensor; do not write to it."""
        if not self.dim() or self.nbytes <= BLOCK_BYTES:
            return self._block(0, self.shape[0] if self.dim() else 1)
        if not self.is_stored:
            return self.rows(0, self.shape[0])
        value, start = torch.empty(self.shape, dtype=self.dtype), 0
        for block in self.blocks():
            value[start : start + len(block)] = block
            start += len(block)
        return value

    def blocks(self) -> Iterator[Tensor]:
        """All numbers as blocks of whole rows, one after the other; do not write to them."""
        if not self.dim() or self.nbytes <= BLOCK_BYTES or not self.is_stored:
            yield self.whole()
            return
        count = max(1, BLOCK_BYTES * self.shape[0] // self.nbytes)
        for start in range(0, self.shape[0], count):
            yield self._block(start, min(start + count, self.shape[0]))

    def _block(self, start: int, stop: int) -> Tensor:
        key = (self.key, start)
        if (kept := KEPT.get(key)) is not None:
            return kept
        value = self.rows(start, stop)
        if self.is_stored:
            KEPT.offer(key, value)
        return value

    def _again(self) -> LazyTensor:
        made = LazyTensor(self.shape, self.dtype, self._read, self.key, is_stored=self.is_stored)
        made._transposed, made.rounded = self._transposed, self.rounded
        return made

    def data_ptr(self) -> int:
        """Refuses: there is no memory, and 0 would be taken for one."""
        raise RuntimeError("a LazyTensor lies nowhere; see key_of")

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """Reads nothing."""
        return f"LazyTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Numbers are read here, unless the result is a lazy tensor, too."""
        kwargs = kwargs or {}
        if func in _SAME:
            return args[0]._again()
        if func in _LAZY:
            return _lazily(func, args, kwargs)
        if func in _IN_BLOCKS and (result := _IN_BLOCKS[func](*args, **kwargs)) is not None:
            return result
        return func(*_read_all(args), **_read_all(kwargs))


def lazy_bytes(module: nn.Module) -> int:
    """Bytes of a module's lazy tensors, tied ones once."""
    return sum({each.key: each.nbytes for _, _, each in lazy_ones(module)}.values())


def whole(tensor: Tensor) -> Tensor:
    """An ordinary tensor with the same numbers."""
    return tensor.whole() if isinstance(tensor, LazyTensor) else tensor


def blocks(tensor: Tensor) -> Iterator[Tensor]:
    """The numbers of a tensor, in blocks of whole rows where it is lazy."""
    return tensor.blocks() if isinstance(tensor, LazyTensor) else iter((tensor,))


def key_of(tensor: Tensor) -> Hashable:
    """Equal for tensors that hold the same numbers, as long as they live."""
    return tensor.key if isinstance(tensor, LazyTensor) else tensor.data_ptr()


def materialize(module: nn.Module) -> None:
    """Read all weights of a module; tied ones stay one tensor."""
    made: dict[Hashable, Tensor] = {}
    for table, name, tensor in lazy_ones(module):
        if tensor.key not in made:
            value = tensor.whole()
            is_weight = isinstance(tensor, nn.Parameter)
            made[tensor.key] = nn.Parameter(value, requires_grad=False) if is_weight else value
        table[name] = made[tensor.key]


def lazy_ones(module: nn.Module) -> list[tuple[dict, str, LazyTensor]]:
    """Where lazy tensors stand in a module: table, name, tensor."""
    return [
        (table, name, tensor)
        for owner in module.modules()
        for table in (owner._parameters, owner._buffers)
        for name, tensor in table.items()
        if isinstance(tensor, LazyTensor)
    ]


def _read_all(values: Any) -> Any:
    return tree_map_only(LazyTensor, LazyTensor.whole, values)


def _lazily(func: Any, args: tuple, kwargs: dict) -> Any:
    """The result of an operator, lazy: it is run when its numbers are wanted."""

    def empty(tensor: LazyTensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def run() -> Any:
        return func(*_read_all(args), **kwargs)

    meta = func(*tree_map_only(LazyTensor, empty, args), **{**kwargs, **_on_meta(kwargs)})
    keys = tree_map_only(LazyTensor, lambda each: each.key, (args, kwargs))
    key = (str(func), repr(keys))
    if not isinstance(meta, Tensor):
        return type(meta)(
            LazyTensor(each.shape, each.dtype, _rows_of(run, i), (*key, i), is_stored=False)
            for i, each in enumerate(meta)
        )
    source = args[0]
    if func in (aten._to_copy.default, aten.clone.default):

        def cast(start: int, stop: int) -> Tensor:
            return source.rows(start, stop).to(meta.dtype)

        return LazyTensor(meta.shape, meta.dtype, cast, key, is_stored=source.is_stored)
    made = LazyTensor(meta.shape, meta.dtype, _rows_of(run), key, is_stored=False)
    made._transposed = source if func == aten.t.default else None
    return made


def _on_meta(kwargs: dict) -> dict:
    return {"device": "meta"} if kwargs.get("device") is not None else {}


def _rows_of(run: Callable[[], Any], place: int | None = None) -> Rows:
    """Rows of what an operator gives, or of one of the tensors that it gives."""

    def read(start: int, stop: int) -> Tensor:
        value = run() if place is None else run()[place]
        return value[start:stop] if value.dim() else value

    return read


def _embedding(table: Any, tokens: Tensor, *_: Any) -> Tensor | None:
    """Only the rows of these tokens."""
    if not isinstance(table, LazyTensor) or table.nbytes <= BLOCK_BYTES:
        return None
    wanted, places = tokens.unique(return_inverse=True)
    rows = torch.cat([table.rows(i, i + 1) for i in wanted.tolist()])
    return rows[places]


def _mm(x: Tensor, weight: Any) -> Tensor | None:
    """A product with a large matrix, block by block of its outputs."""
    table = weight._transposed if isinstance(weight, LazyTensor) else None
    if table is None or table.nbytes <= BLOCK_BYTES or isinstance(x, LazyTensor):
        return None
    result, start = x.new_empty(len(x), len(table)), 0
    for block in table.blocks():
        torch.mm(x, block.t(), out=result[:, start : start + len(block)])
        start += len(block)
    return result


def _addmm(bias: Tensor, x: Tensor, weight: Any) -> Tensor | None:
    result = _mm(x, weight)
    return None if result is None else result.add_(whole(bias))


_IN_BLOCKS: dict[Any, Callable[..., Tensor | None]] = {
    aten.embedding.default: _embedding,
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
}
