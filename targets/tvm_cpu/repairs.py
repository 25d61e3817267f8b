"""Repairs of TVM's importer: operators that it does not know, gets wrong, or makes slow.

Each function takes a node of the exported graph and the importer, and returns a Relax value.
"""

from math import prod
from typing import Any

from torch import fx

from lcc.targets.tvm_cpu.part_repairs import PART_REPAIRS, inside, part, sizes
from lcc.targets.tvm_cpu.tir import exp


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


def _log_sigmoid(node: fx.Node, importer: Any) -> Any:
    """min(x, 0) - log(1 + exp(-|x|)), in which nothing overflows."""
    from tvm import relax

    x, emit = importer.env[node.args[0]], importer.block_builder.emit
    zero, one = (relax.const(value, _kind(node)) for value in (0.0, 1.0))
    small = emit(relax.op.exp(emit(relax.op.negative(emit(relax.op.abs(x))))))
    rest = emit(relax.op.log(emit(relax.op.add(one, small))))
    return emit(relax.op.subtract(emit(relax.op.minimum(x, zero)), rest))


def _variance(node: fx.Node, importer: Any) -> Any:
    """Of n numbers; unbiased, their squares are divided by n - 1."""
    from tvm import relax

    args: list = list(importer.retrieve_args(node))
    defaults: list = [None, None, True, False]
    x, axes, unbiased, keep = args + defaults[len(args) :]
    emit = importer.block_builder.emit
    mean = emit(relax.op.mean(x, axes, keepdims=True))
    away = emit(relax.op.subtract(x, mean))
    value = emit(relax.op.mean(emit(relax.op.multiply(away, away)), axes, keepdims=keep))
    if not unbiased:
        return value
    known = sizes(node.args[0])
    count = prod(known[axis] for axis in axes)
    return emit(relax.op.multiply(value, relax.const(count / (count - 1), _kind(node))))


def _concatenate(node: fx.Node, importer: Any) -> Any:
    """Another name of cat."""
    from tvm import relax

    parts, *axis = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.concat(parts, axis=axis[0] if axis else 0))


def highest(node: fx.Node, importer: Any) -> Any:
    """The k highest, in order, k known when it runs; nobody asks where they were."""
    from tvm import relax

    x, k, axis = importer.retrieve_args(node)[:3]
    emit = importer.block_builder.emit
    users = [user for user in node.users if user.users]
    assert all(user.args[1] == 0 for user in users), "topk: only its values are compiled"
    ordered = emit(relax.op.sort(x, axis, descending=True))
    return part(importer, ordered, axis % x.ty.ndim, 0, lambda _: k), None


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
    places = inside(importer, x, axis, index)
    call = relax.op.scatter_elements(x, places, source, axis=axis, reduction="add")
    return importer.block_builder.emit(call)


def _repeat_interleave(node: fx.Node, importer: Any) -> Any:
    """Each row of an axis as often as a number says, one behind the other."""
    from tvm import relax

    x, count, axis = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.repeat(x, count, axis % x.ty.ndim))


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
    **PART_REPAIRS,
    "_unsafe_view.default": _view,
    "silu.default": _silu,
    "log_sigmoid.default": _log_sigmoid,
    "var.dim": _variance,
    "concatenate.default": _concatenate,
    "to.dtype": _to,
    "_to_copy.default": _to,
    "sym_size.int": _size,
    "pad.default": _pad,
    "amax.default": _amax,
    "clamp.default": _clamp,
    "cumsum.default": _cumsum,
    "ones_like.default": _ones_like,
    "masked_fill.Scalar": _masked_fill,
    "pow.Tensor_Scalar": _pow,
    "rsub.Scalar": _rsub,
    "scatter_add.default": _scatter_add,
    "repeat_interleave.self_int": _repeat_interleave,
    "where.ScalarSelf": _where,
    "where.ScalarOther": _where,
    "linalg_vector_norm.default": _norm,
}
