"""Repairs of TVM's importer: operators that it does not know, gets wrong, or makes slow.

Each function takes a node of the exported graph and the importer, and returns a Relax value.
"""

import sys
from typing import Any

from torch import fx

from lcc.targets.tvm_cpu.tir import exp


def sizes(node: fx.Node) -> list:
    """Shape of a node's value, numbers; None = known when it runs."""
    return [size if isinstance(size, int) else None for size in node.meta["val"].shape]


def _to(node: fx.Node, importer: Any) -> Any:
    """Another type, where it is another."""
    from tvm import relax

    x = importer.env[node.args[0]]
    kind = _kind(node)
    if str(x.ty.dtype.dtype) == kind:
        return x
    return importer.block_builder.emit(relax.op.astype(x, kind))


def _kind(node: fx.Node) -> str:
    """Type of a node's numbers."""
    return str(node.meta["val"].dtype).removeprefix("torch.")


def _silu(node: fx.Node, importer: Any) -> Any:
    """Make x * sigmoid(x), as an expression that fuses with the product that follows it."""
    from tvm import te

    def silu(x: Any) -> Any:
        def at(*index: Any) -> Any:
            return x(*index) / (te.const(1.0) + exp(-x(*index), 1, bind=False))

        return te.compute(x.shape, at, name="silu")

    return importer.block_builder.emit_te(silu, importer.env[node.args[0]])


def _topk(node: fx.Node, importer: Any) -> Any:
    """The k highest, in order, k known when it runs; nobody asks where they were."""
    from tvm import relax

    x, k, axis = importer.retrieve_args(node)[:3]
    emit = importer.block_builder.emit
    users = [user for user in node.users if user.users]
    assert all(user.args[1] == 0 for user in users), "topk: only its values are compiled"
    ordered = emit(relax.op.sort(x, axis, descending=True))
    return _part(importer, ordered, axis % x.ty.ndim, 0, lambda _: k), None


def _slice(node: fx.Node, importer: Any) -> Any:
    """Consecutive rows; TVM's own forgets how many they are where the size is no number."""
    args: list = list(importer.retrieve_args(node))
    defaults: list = [None, 0, None, None, 1]
    x, axis, start, end, step = args + defaults[len(args) :]
    assert step == 1
    axis = axis % x.ty.ndim
    start = 0 if start is None else start
    end = None if end is None or (isinstance(end, int) and end >= sys.maxsize) else end

    def count(size: Any) -> Any:
        known = sizes(node)[axis]
        last = size if end is None else size + end if isinstance(end, int) and end < 0 else end
        return last - _from_front(start, size) if known is None else known

    return _part(importer, x, axis, start, count)


def _from_front(start: Any, size: Any) -> Any:
    """Where a part begins; a negative number counts from the end, a size is never negative."""
    return size + start if isinstance(start, int) and start < 0 else start


def _size(node: fx.Node, importer: Any) -> Any:
    """How long an axis is: a number, where it is known."""
    x, axis = importer.retrieve_args(node)
    size = x.ty.shape.values[axis]
    return int(size) if hasattr(size, "value") else size


def _pad(node: fx.Node, importer: Any) -> Any:
    """Zeros before and after; TVM's own says of a length n - 1 + 1 that it is not n."""
    from tvm import te, tirx
    from tvm.sym import Analyzer

    x, widths, *_ = importer.retrieve_args(node)
    rank = x.ty.ndim
    before = [0] * (rank - len(widths) // 2) + list(widths[::2])[::-1]
    after = [0] * (rank - len(widths) // 2) + list(widths[1::2])[::-1]

    def pad(source: Any) -> Any:
        shape = [
            Analyzer().simplify(size + low + high)
            for size, low, high in zip(source.shape, before, after, strict=True)
        ]

        def at(*index: Any) -> Any:
            places = [i - low for i, low in zip(index, before, strict=True)]
            inside = [
                tirx.all(place >= 0, place < size)
                for place, size, low, high in zip(places, source.shape, before, after, strict=True)
                if low or high
            ]
            zero = tirx.const(0, source.dtype)
            return tirx.if_then_else(tirx.all(*inside), source(*places), zero)

        return te.compute(shape, at, name="pad")

    return importer.block_builder.emit_te(pad, x)


def _part(importer: Any, x: Any, axis: int, start: Any, count: Any) -> Any:
    """Rows along an axis, from `start` on, a number or a size; `count`: size -> how many."""
    from tvm import te

    def part(source: Any) -> Any:
        size = source.shape[axis]
        first = _from_front(start, size)
        shape = [count(size) if i == axis else size for i, size in enumerate(source.shape)]

        def at(*index: Any) -> Any:
            return source(*(each + first if i == axis else each for i, each in enumerate(index)))

        return te.compute(shape, at, name="part")

    return importer.block_builder.emit_te(part, x)


def _view(node: fx.Node, importer: Any) -> Any:
    """Another shape, of a product's own result."""
    from tvm import relax

    x, shape = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.reshape(x, shape))


def _amax(node: fx.Node, importer: Any) -> Any:
    from tvm import relax

    x, axes, *keep = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.max(x, axes, keepdims=bool(keep and keep[0])))


def _clamp(node: fx.Node, importer: Any) -> Any:
    """Of whole numbers, too, which have no infinity."""
    from tvm import relax

    args: list = [*node.args, None, None]
    low, high = node.kwargs.get("min", args[1]), node.kwargs.get("max", args[2])
    x, emit = importer.env[node.args[0]], importer.block_builder.emit
    for bound, apply in ((low, relax.op.maximum), (high, relax.op.minimum)):
        if bound is not None:
            x = emit(apply(x, relax.const(bound, _kind(node))))
    return x


def _cumsum(node: fx.Node, importer: Any) -> Any:
    """Of truth values, too, which PyTorch counts."""
    from tvm import relax

    x, axis = importer.retrieve_args(node)
    kind = _kind(node)
    emit = importer.block_builder.emit
    return emit(relax.op.cumsum(emit(relax.op.astype(x, kind)), axis, dtype=kind))


def _ones_like(node: fx.Node, importer: Any) -> Any:
    """Of the type that is asked for, not of the model's."""
    from tvm import relax

    x = importer.env[node.args[0]]
    kind = _kind(node)
    return importer.block_builder.emit(relax.op.ones_like(x, kind))


def _scatter_add(node: fx.Node, importer: Any) -> Any:
    from tvm import relax

    x, axis, index, source = importer.retrieve_args(node)
    call = relax.op.scatter_elements(x, index, source, axis=axis, reduction="add")
    return importer.block_builder.emit(call)


def _where(node: fx.Node, importer: Any) -> Any:
    """One of the two is a number."""
    from tvm import relax

    kind = _kind(node)
    condition, *values = importer.retrieve_args(node)
    values = [relax.const(v, kind) if isinstance(v, int | float) else v for v in values]
    return importer.block_builder.emit(relax.op.where(condition, *values))


def _masked_fill(node: fx.Node, importer: Any) -> Any:
    from tvm import relax

    x, mask, value = importer.retrieve_args(node)
    kind = _kind(node)
    return importer.block_builder.emit(relax.op.where(mask, relax.const(value, kind), x))


def _pow(node: fx.Node, importer: Any) -> Any:
    """A square is a product, and fuses; another power is a call of the C library's."""
    from tvm import relax

    x, power = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    if power == 2:
        return emit(relax.op.multiply(x, x))
    kind = _kind(node)
    return emit(relax.op.power(x, relax.const(power, kind)))


def _rsub(node: fx.Node, importer: Any) -> Any:
    """A number or a size less a value, of the value's type; TVM's own does not look at it."""
    from tvm import relax

    value, number = importer.retrieve_args(node)
    kind, emit = _kind(node), importer.block_builder.emit
    if isinstance(number, int | float):
        return emit(relax.op.subtract(relax.const(number, kind), value))
    out = relax.op.subtract(number, emit(relax.op.astype(value, "int64")))  # as sizes are
    return emit(relax.op.astype(emit(out), kind))


def _select(node: fx.Node, importer: Any) -> Any:
    """One row of an axis, as an expression that fuses."""
    from tvm import te

    x, axis, place = importer.retrieve_args(node)
    axis = axis % x.ty.ndim
    size = x.ty.shape.values[axis]
    place = size + place if isinstance(place, int) and place < 0 else place

    def select(source: Any) -> Any:
        shape = [size for i, size in enumerate(source.shape) if i != axis]

        def at(*index: Any) -> Any:
            return source(*index[:axis], place, *index[axis:])

        return te.compute(shape, at, name="select")

    return importer.block_builder.emit_te(select, x)


def _norm(node: fx.Node, importer: Any) -> Any:
    """The Euclidean one, without powers."""
    from tvm import relax

    args: list = list(importer.retrieve_args(node))
    defaults: list = [None, 2, None, False]
    x, order, axes, keep = args + defaults[len(args) :]
    assert order == 2
    emit = importer.block_builder.emit
    return emit(relax.op.sqrt(relax.op.sum(relax.op.multiply(x, x), axes, keepdims=keep)))


REPAIRS = {
    "_unsafe_view.default": _view,
    "silu.default": _silu,
    "to.dtype": _to,
    "_to_copy.default": _to,
    "topk.default": _topk,
    "sym_size.int": _size,
    "slice.Tensor": _slice,
    "pad.default": _pad,
    "amax.default": _amax,
    "clamp.default": _clamp,
    "cumsum.default": _cumsum,
    "ones_like.default": _ones_like,
    "masked_fill.Scalar": _masked_fill,
    "pow.Tensor_Scalar": _pow,
    "rsub.Scalar": _rsub,
    "select.int": _select,
    "scatter_add.default": _scatter_add,
    "where.ScalarSelf": _where,
    "where.ScalarOther": _where,
    "linalg_vector_norm.default": _norm,
}
