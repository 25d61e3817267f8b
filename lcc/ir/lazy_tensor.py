"""A weight that is read from its file when something is computed with it, and not kept.

A captured model refers to its weights, and most of what lcc does with a graph asks for their shapes
alone. So a model of any size is specialized in the memory of its largest weight, and a target reads
one weight after the other as it writes them.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten

SMALL_BYTES = 1 << 16  # of a weight: smaller ones are read when a graph is traced
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


class Levels(NamedTuple):
    """Rows [n, K] of a weight that was rounded once: weight = level * scale + offset.

    level   [n, K] uint8
    scale   [n, K / block] float32, of blocks of neighbouring inputs
    offset  likewise
    """

    level: Tensor
    scale: Tensor
    offset: Tensor


class Rounded(NamedTuple):
    """How the rows [n, K] of a weight were rounded before lcc read it.

    rows        from row, to row -> their levels
    bits        4 or 8: levels are below 2^bits
    block       inputs that share a scale, 16 or 32
    about_zero  the offset of every block is -2^(bits - 1) times its scale
    """

    rows: Callable[[int, int], Levels]
    bits: int
    block: int
    about_zero: bool


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
            _READS.count(value.nbytes)
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
        if (kept := _KEPT.get(key)) is not None:
            return kept
        value = self.rows(start, stop)
        if self.is_stored:
            _KEPT.offer(key, value)
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


class Latest:
    """The last thing that was made, for those who ask for it again at once."""

    def __init__(self) -> None:
        self._made: tuple[Hashable, Any] | None = None

    def of(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, now or for the same key the last time."""
        if self._made is None or self._made[0] != key:
            self._made = None  # before the next one takes its memory
            self._made = key, make()
        return self._made[1]


class _Kept:
    """Weights that stay in memory while something reads them again and again."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Tensor] = {}
        self._room = 0

    def get(self, key: Hashable) -> Tensor | None:
        return self._values.get(key)

    def offer(self, key: Hashable, value: Tensor) -> None:
        # Whoever comes first stays: of weights that are read in turns, the oldest come next.
        if value.nbytes <= self._room:
            self._room -= value.nbytes
            self._values[key] = value

    def begin(self, size: int) -> None:
        self._values, self._room = {}, size


class _Reads:
    """Counts the bytes of weights that are read and forgotten, block after block.

    And gives their memory back to the system. The C library would keep it, in pieces between what
    stays: 700 MB for each reading of a model of 1.2 billion weights.
    """

    EVERY = 1 << 28  # bytes read

    def __init__(self) -> None:
        self._read = 0
        self.tell: Callable[[int], None] = _nobody
        self._trim: Callable[[int], int] | None = None
        # Another C library than GNU's has no such function.
        with contextlib.suppress(AttributeError, OSError, TypeError):
            self._trim = ctypes.CDLL(None).malloc_trim

    def count(self, size: int) -> None:
        self.tell(size)
        self._read += size
        if self._read > self.EVERY and self._trim is not None:
            self._trim(0)
            self._read = 0


def _nobody(_: int) -> None:
    pass


_KEPT, _READS = _Kept(), _Reads()


@contextlib.contextmanager
def weights_kept(size: int) -> Iterator[None]:
    """Keep up to `size` bytes of what is read in here, for those that read it again."""
    _KEPT.begin(size)
    try:
        yield
    finally:
        _KEPT.begin(0)


@contextlib.contextmanager
def reads_told(tell: Callable[[int], None]) -> Iterator[None]:
    """Within, `tell` gets the bytes of each part of a weight that is read."""
    _READS.tell = tell
    try:
        yield
    finally:
        _READS.tell = _nobody


def lazy_bytes(module: nn.Module) -> int:
    """Bytes of a module's lazy tensors, tied ones once."""
    return sum({each.key: each.nbytes for _, _, each in _lazy_ones(module)}.values())


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
    for table, name, tensor in _lazy_ones(module):
        if tensor.key not in made:
            value = tensor.whole()
            is_weight = isinstance(tensor, nn.Parameter)
            made[tensor.key] = nn.Parameter(value, requires_grad=False) if is_weight else value
        table[name] = made[tensor.key]


class StandIns:
    """Ordinary tensors in place of lazy ones: for what traces a graph, and reads no numbers.

    Their memory is never written, so it takes none. Small ones are read: exporters compute with
    them.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Tensor] = {}
        self._meant: dict[int, LazyTensor] = {}

    def of(self, tensor: Tensor) -> Tensor:
        """The stand-in of a lazy tensor; any other tensor itself."""
        if not isinstance(tensor, LazyTensor):
            return tensor
        if tensor.key not in self._made:
            if tensor.nbytes < SMALL_BYTES:
                empty = tensor.whole()
            else:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            if tensor.numel():
                self._meant[empty.data_ptr()] = tensor
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=False)
            self._made[tensor.key] = empty
        return self._made[tensor.key]

    def meant(self, tensor: Tensor) -> Tensor:
        """The lazy tensor that a tensor stands for; any other tensor itself."""
        lazy = isinstance(tensor, LazyTensor)
        return tensor if lazy else self._meant.get(tensor.data_ptr(), tensor)

    def put_back(self, exported: ExportedProgram) -> None:
        """Let an exported program have the lazy tensors again."""
        for table in (exported.state_dict, exported.constants):
            for name, tensor in table.items():
                if isinstance(tensor, Tensor):
                    table[name] = self.meant(tensor)


@contextlib.contextmanager
def traced(exported: ExportedProgram) -> Iterator[StandIns]:
    """Within, an exported program has stand-ins for its lazy tensors."""
    made = StandIns()
    for table in (exported.state_dict, exported.constants):
        for name, tensor in table.items():
            if isinstance(tensor, Tensor):
                table[name] = made.of(tensor)
    try:
        yield made
    finally:
        made.put_back(exported)


@contextlib.contextmanager
def stand_ins(module: nn.Module) -> Iterator[StandIns]:
    """Within, a module has stand-ins for its lazy tensors."""
    made, before = StandIns(), _lazy_ones(module)
    for table, name, tensor in before:
        table[name] = made.of(tensor)
    try:
        yield made
    finally:
        for table, name, tensor in before:
            table[name] = tensor


def _lazy_ones(module: nn.Module) -> list[tuple[dict, str, LazyTensor]]:
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
