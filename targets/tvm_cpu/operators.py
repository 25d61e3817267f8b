"""What the importer makes of operators: our kernels for some, repairs of its own for others.

Each function takes a node of the exported graph and TVM's importer, and returns a Relax value.
Those of no kernel here are TVM's own; it refuses what it does not know.
"""

import sys
from collections.abc import Callable
from typing import Any

from torch import fx

from lcc.targets.tvm_cpu import rows
from lcc.targets.tvm_cpu.attention import Layer, cached_attention
from lcc.targets.tvm_cpu.matmul import batched, linear, lookup
from lcc.targets.tvm_cpu.tir import Tiles, exp


def operators(tiles: Tiles, packed: dict[str, tuple[int, int]]) -> dict[str, Callable]:
    """Operator's name -> what it becomes.

    packed      parameter's name -> its sizes [N, K] before it was packed
    """
    kernels = _Kernels(tiles, packed)
    return {
        "linear.default": kernels.linear,
        "addmm.default": kernels.addmm,
        "mm.default": kernels.matmul,
        "matmul.default": kernels.matmul,
        "bmm.default": kernels.matmul,
        "embedding.default": kernels.embedding,
        "rotate.default": kernels.rotate,
        "cached_attention.default": kernels.cached_attention,
        "cached_sink_window.default": kernels.cached_sink_window,
        "softmax.int": kernels.softmax,
        "log_softmax.int": kernels.log_softmax,
        "gather.default": kernels.gather,
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
        "select.int": _select,
        "scatter_add.default": _scatter_add,
        "where.ScalarSelf": _where,
        "where.ScalarOther": _where,
        "linalg_vector_norm.default": _norm,
    }


def sizes(node: fx.Node) -> list[int | None]:
    """Shape of a node's value; None = known when it runs."""
    return [size if isinstance(size, int) else None for size in node.meta["val"].shape]


class _Kernels:
    """Operators that become one call of a kernel of ours."""

    def __init__(self, tiles: Tiles, packed: dict[str, tuple[int, int]]) -> None:
        self.tiles, self.packed = tiles, packed

    def _call(self, importer: Any, function: Any, args: list, shape: list, dtype: str) -> Any:
        from tvm import relax

        builder = importer.block_builder
        name = builder.add_func(function, function.attrs["lcc.kernel"])
        return builder.emit(relax.call_tir(name, args, relax.TensorType(shape, dtype)))

    def linear(self, node: fx.Node, importer: Any) -> Any:
        """x @ weight.T + bias, the weight packed."""
        x, weight, *bias = node.args
        return self._packed(importer, x, weight, bias[0] if bias else None)

    def addmm(self, node: fx.Node, importer: Any) -> Any:
        """Bias + x @ weight, as GPT-2 writes it, the weight turned and packed."""
        bias, x, weight = node.args
        return self._packed(importer, x, weight, bias)

    def _packed(self, importer: Any, x: Any, weight: Any, bias: Any) -> Any:
        n, k = self.packed[weight.name]
        value, table = importer.env[x], importer.env[weight]
        shape = list(value.ty.shape.values)
        assert all(int(size) == 1 for size in shape[:-2])
        function = linear(n, k, len(shape), self.tiles, bias=bias is not None)
        args = [value, table, *([importer.env[bias]] if bias is not None else [])]
        return self._call(importer, function, args, [*shape[:-1], n], "float32")

    def matmul(self, node: fx.Node, importer: Any) -> Any:
        """A product of two activations, or of one and a weight."""
        from tvm import relax

        a, b = node.args
        if b.name in self.packed:
            return self._packed(importer, a, b, None)
        emit, left, right = importer.block_builder.emit, importer.env[a], importer.env[b]
        ranks = len(sizes(a)), len(sizes(b))
        if ranks == (2, 2):
            left, right = (emit(relax.op.expand_dims(x, 0)) for x in (left, right))
        elif ranks != (3, 3):
            return emit(relax.op.matmul(left, right))
        (m, k), n = sizes(a)[-2:], sizes(b)[-1]
        batch = sizes(a)[0] if ranks[0] == 3 else 1
        function = batched(self.tiles, batch, m, k, n)
        shape = [batch, left.ty.shape.values[1], right.ty.shape.values[2]]
        out = self._call(importer, function, [left, right], shape, "float32")
        return emit(relax.op.squeeze(out, [0])) if ranks == (2, 2) else out

    def embedding(self, node: fx.Node, importer: Any) -> Any:
        """Rows of a table, packed or as it is."""
        table, tokens = node.args[:2]
        value = importer.env[tokens]
        n, k = self.packed.get(table.name) or sizes(table)
        assert len(sizes(tokens)) == 2
        assert sizes(tokens)[0] == 1
        width = self.tiles.columns if table.name in self.packed else None
        function = lookup(n, k, width, str(value.ty.dtype.dtype))
        shape = [*value.ty.shape.values, k]
        return self._call(importer, function, [importer.env[table], value], shape, "float32")

    def rotate(self, node: fx.Node, importer: Any) -> Any:
        """Rotary embedding with the cosines of each token given."""
        x, cos, sin, interleaved = node.args
        heads, size = sizes(x)[2:]
        function = rows.rotate(self.tiles, heads, size, sizes(cos)[2], interleaved)
        args = [importer.env[each] for each in (x, cos, sin)]
        return self._call(importer, function, args, list(args[0].ty.shape.values), "float32")

    def cached_attention(self, node: fx.Node, importer: Any) -> Any:
        """Attention over a cache that is written in place."""
        q, k, v, key, value, used, scale, window, softcap, _ = node.args
        window = 0 if window >= (sizes(key)[2] or window + 1) else window
        layer = self._layer(q, key, scale, softcap, window=window)
        return self._attention(importer, layer, [q, k, v, key, value, used])

    def cached_sink_window(self, node: fx.Node, importer: Any) -> Any:
        """The same, of first and newest entries."""
        q, sink_q, k, v, key, value, used, sink, window, block, scale, softcap, _ = node.args
        layer = self._layer(q, key, scale, softcap, window=window, sink=sink, block=block)
        args = [q, *([sink_q] if sink else []), k, v, key, value, used]
        return self._attention(importer, layer, args)

    def _layer(self, q: fx.Node, key: fx.Node, scale: float, softcap: float, **sees: int) -> Layer:
        return Layer(sizes(q)[2], sizes(key)[1], sizes(q)[3], scale, softcap, **sees)

    def _attention(self, importer: Any, layer: Layer, nodes: list[fx.Node]) -> Any:
        from tvm import relax

        builder = importer.block_builder
        args = [importer.env[node] for node in nodes]
        name = builder.add_func(cached_attention(layer, self.tiles), "cached_attention")
        place = len(args) - 3
        types = [args[0].ty, args[place].ty, args[place + 1].ty]
        call = relax.op.call_tir_inplace(name, args, [-1, place, place + 1], types)
        return builder.emit(call)

    def softmax(self, node: fx.Node, importer: Any) -> Any:
        """Along the last axis."""
        x, axis = node.args[:2]
        assert axis in (-1, len(sizes(x)) - 1)
        value = importer.env[x]
        function = rows.softmax(self.tiles, sizes(x))
        return self._call(importer, function, [value], list(value.ty.shape.values), "float32")

    def log_softmax(self, node: fx.Node, importer: Any) -> Any:
        """Logits less the logarithm of the sum of their exponentials."""
        from tvm import relax

        x, axis = node.args[:2]
        assert axis in (-1, len(sizes(x)) - 1)
        value = importer.env[x]
        return importer.block_builder.emit(relax.op.subtract(value, self._log_sum(x, importer)))

    def _log_sum(self, x: fx.Node, importer: Any) -> Any:
        value = importer.env[x]
        shape = [*value.ty.shape.values[:-1], 1]
        function = rows.log_sum(self.tiles, sizes(x))
        return self._call(importer, function, [value], shape, "float32")

    def gather(self, node: fx.Node, importer: Any) -> Any:
        """Some of each row; of a log_softmax, only these are computed."""
        from tvm import relax

        source, axis, index = node.args
        emit, places = importer.block_builder.emit, importer.env[index]
        if str(source.target) != "aten.log_softmax.int":
            return emit(relax.op.gather_elements(importer.env[source], places, axis))
        logits = source.args[0]
        picked = emit(relax.op.gather_elements(importer.env[logits], places, axis))
        return emit(relax.op.subtract(picked, self._log_sum(logits, importer)))


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
    """x * sigmoid(x), as an expression that fuses with the product that follows it."""
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
    args = importer.retrieve_args(node)
    x, axis, start, end, step = [*args, *(None, 0, None, None, 1)[len(args) :]]
    assert step == 1
    axis = axis % x.ty.ndim
    start = start or 0
    end = None if end is None or (isinstance(end, int) and end >= sys.maxsize) else end

    def count(size: Any) -> Any:
        known = sizes(node)[axis]
        last = size if end is None else size + end if isinstance(end, int) and end < 0 else end
        return last - (size + start if start < 0 else start) if known is None else known

    return _part(importer, x, axis, start, count)


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


def _part(importer: Any, x: Any, axis: int, start: int, count: Any) -> Any:
    """Rows along an axis, from `start` on, which may be negative; `count`: size -> how many."""
    from tvm import te

    def part(source: Any) -> Any:
        size = source.shape[axis]
        first = size + start if start < 0 else start
        shape = [count(size) if i == axis else size for i, size in enumerate(source.shape)]

        def at(*index: Any) -> Any:
            return source(*(each + first if i == axis else each for i, each in enumerate(index)))

        return te.compute(shape, at, name="part")

    return importer.block_builder.emit_te(part, x)


def _amax(node: fx.Node, importer: Any) -> Any:
    from tvm import relax

    x, axes, *keep = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.max(x, axes, keepdims=bool(keep and keep[0])))


def _clamp(node: fx.Node, importer: Any) -> Any:
    """Of whole numbers, too, which have no infinity."""
    from tvm import relax

    args = [*node.args, *(None, None)]
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

    args = importer.retrieve_args(node)
    x, order, axes, keep = [*args, *(None, 2, None, False)[len(args) :]]
    assert order == 2
    emit = importer.block_builder.emit
    return emit(relax.op.sqrt(relax.op.sum(relax.op.multiply(x, x), axes, keepdims=keep)))
