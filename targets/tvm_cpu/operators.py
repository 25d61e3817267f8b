"""Operators that become kernels of ours.

Each function takes a node of the exported graph and TVM's importer, and returns a Relax value.
What has no kernel here is TVM's own, or repaired in `repairs`; what none knows is refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from lcc.ir.plan import BlockSparse
from lcc.targets.tvm_cpu import block_products, byte_products, rows
from lcc.targets.tvm_cpu.attention import Layer, cached_attention
from lcc.targets.tvm_cpu.attention_rows import MOST_SLOTS
from lcc.targets.tvm_cpu.causal_conv import causal_conv
from lcc.targets.tvm_cpu.experts import Experts, experts
from lcc.targets.tvm_cpu.linear_attention import linear_attention
from lcc.targets.tvm_cpu.linear_attention_parts import Recurrence, decay_of
from lcc.targets.tvm_cpu.matmul import batched, linear, lookup
from lcc.targets.tvm_cpu.part_repairs import inside, sizes
from lcc.targets.tvm_cpu.repairs import REPAIRS, highest
from lcc.targets.tvm_cpu.tir import Tiles
from lcc.targets.tvm_cpu.weights import Rounding, Weight


def operators(
    tiles: Tiles, packed: dict[str, Weight], *, fine: bool = False
) -> dict[str, Callable]:
    """Operator's name -> what it becomes.

    packed      parameter's name -> what is packed for products
    fine        inputs of products in 8 bits are rounded twice: see `byte_products.linear`
    """
    kernels = _Kernels(tiles, packed, fine=fine)
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
        "cached_block_sparse.default": kernels.cached_block_sparse,
        "causal_conv.default": kernels.causal_conv,
        "linear_attention.default": kernels.linear_attention,
        "experts.default": kernels.experts,
        "softmax.int": kernels.softmax,
        "log_softmax.int": kernels.log_softmax,
        "topk.default": kernels.topk,
        "gather.default": kernels.gather,
        **REPAIRS,
    }


class _Kernels:
    """Operators that become one call of a kernel of ours."""

    def __init__(self, tiles: Tiles, packed: dict[str, Weight], *, fine: bool) -> None:
        self.tiles, self.packed, self.fine = tiles, packed, fine
        # What several products read, rounded once: by rows, or in blocks.
        self.rounded: dict[tuple[fx.Node, bool], Any] = {}

    def _call(self, importer: Any, function: Any, args: list, shape: list, dtype: str) -> Any:
        from tvm import relax

        builder = importer.block_builder
        name = builder.add_func(function, function.attrs["lcc.kernel"])
        return builder.emit(relax.call_tir(name, args, relax.TensorType(shape, dtype)))

    def linear(self, node: fx.Node, importer: Any) -> Any:
        """Multiply by a packed weight, and add a bias."""
        x, weight, *bias = node.args
        return self._packed(importer, x, weight, bias[0] if bias else None)

    def addmm(self, node: fx.Node, importer: Any) -> Any:
        """Bias + x @ weight, as GPT-2 writes it, the weight turned and packed."""
        bias, x, weight = node.args
        return self._packed(importer, x, weight, bias)

    def _packed(self, importer: Any, x: Any, weight: Any, bias: Any) -> Any:
        assert weight.name in self.packed, f"{weight.name} is used in more than one way"
        n, k = self._sizes(weight)
        value, table = importer.env[x], importer.env[weight]
        shape = list(value.ty.shape.values)
        assert all(int(size) == 1 for size in shape[:-2])
        has_bias = bias is not None
        rounding = self.packed[weight.name].rounding
        of = n, k, len(shape), self.tiles
        if rounding is None:
            function = linear(*of, bias=has_bias)
        elif rounding is Rounding.ROWS:
            value = self._rounded(importer, x, k, in_blocks=False)
            function = byte_products.linear(*of, bias=has_bias, fine=self.fine)
        else:
            value = self._rounded(importer, x, k, in_blocks=True)
            function = block_products.linear(*of, bits=rounding.bits, bias=has_bias)
        args = [value, table, *([importer.env[bias]] if bias is not None else [])]
        return self._call(importer, function, args, [*shape[:-1], n], "float32")

    def _sizes(self, weight: fx.Node) -> tuple[int, int]:
        """[N, K] of a weight before it was packed."""
        sizes = self.packed[weight.name].sizes
        assert sizes is not None
        return sizes

    def _rounded(self, importer: Any, x: fx.Node, k: int, *, in_blocks: bool) -> Any:
        """Rows of K numbers in 8 bits, once for all products that read them."""
        if (x, in_blocks) not in self.rounded:
            value = importer.env[x]
            *rows, _ = value.ty.shape.values
            of = k, len(rows) + 1, self.tiles
            if in_blocks:
                function = block_products.round_rows(*of)
                shape = [*rows, block_products.rounded_size(k)]
            else:
                function = byte_products.round_rows(*of, fine=self.fine)
                each = 2 if self.fine else 1
                shape = [*rows[:-1], rows[-1] * each, byte_products.rounded_size(k, self.tiles)]
            self.rounded[x, in_blocks] = self._call(importer, function, [value], shape, "int32")
        return self.rounded[x, in_blocks]

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
        assert len(sizes(tokens)) == 2
        assert sizes(tokens)[0] == 1
        packed, dtype = self.packed.get(table.name), str(value.ty.dtype.dtype)
        n, k = self._sizes(table) if packed else sizes(table)
        rounding = packed.rounding if packed else None
        if rounding is Rounding.ROWS:
            function = byte_products.lookup(n, k, self.tiles, dtype)
        elif rounding is not None:
            function = block_products.lookup(n, k, self.tiles, dtype, bits=rounding.bits)
        else:
            function = lookup(n, k, self.tiles.columns if packed else None, dtype)
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
        q, k, v, key, value, used, scale, window, softcap, _, *more = node.args
        sinks, bias = [*more, None, None][:2]
        window = 0 if window >= (sizes(key)[2] or window + 1) else window
        has = {"sinks": sinks is not None, "bias": bias is not None}
        layer = self._layer(q, key, scale, softcap, window=window, **has)
        values = [] if sinks is None else [importer.env[sinks]]
        if bias is not None:  # a block of slots is read, which may end behind the last one
            values.append(_wider(importer, importer.env[bias], MOST_SLOTS))
        return self._attention(importer, layer, [q, k, v, key, value, used], values)

    def cached_sink_window(self, node: fx.Node, importer: Any) -> Any:
        """The same, of first and newest entries."""
        q, sink_q, k, v, key, value, used, sink, window, block, scale, softcap, _ = node.args
        layer = self._layer(q, key, scale, softcap, window=window, sink=sink, block=block)
        args = [q, *([sink_q] if sink else []), k, v, key, value, used]
        return self._attention(importer, layer, args)

    def cached_block_sparse(self, node: fx.Node, importer: Any) -> Any:
        """The same, of blocks of the text."""
        q, k, v, key, value, used, places, *numbers, scale, softcap, _ = node.args
        kind = BlockSparse(**dict(zip(BlockSparse.__struct_fields__, numbers, strict=True)))
        layer = self._layer(q, key, scale, softcap, blocks=kind)
        return self._attention(importer, layer, [q, k, v, key, value, used, places])

    def _layer(self, q: fx.Node, key: fx.Node, scale: float, softcap: float, **sees: Any) -> Layer:
        half = key.meta["val"].dtype == torch.float16
        return Layer(sizes(q)[2], sizes(key)[1], sizes(q)[3], scale, softcap, half=half, **sees)

    def _attention(
        self, importer: Any, layer: Layer, nodes: list[fx.Node], more: Sequence[Any] = ()
    ) -> Any:
        from tvm import relax

        builder = importer.block_builder
        args = [*(importer.env[node] for node in nodes), *more]
        name = builder.add_func(cached_attention(layer, self.tiles), "cached_attention")
        place = 4 if layer.sink else 3  # of the keys
        types = [args[0].ty, args[place].ty, args[place + 1].ty]
        call = relax.op.call_tir_inplace(name, args, [-1, place, place + 1], types)
        return builder.emit(call)

    def causal_conv(self, node: fx.Node, importer: Any) -> Any:
        """Sums over the newest numbers of each channel, those before the text's step in a state."""
        x, weight, bias, state = node.args
        channels, size = sizes(weight)
        function = causal_conv(channels, size, self.tiles, bias=bias is not None)
        return self._recurrence(importer, function, [x, weight, bias, state], x)

    def linear_attention(self, node: fx.Node, importer: Any) -> Any:
        """What queries read of the states of heads, which keys and values change in place."""
        q, k, v, decay, beta, state, scale = node.args
        heads, values = sizes(v)[2:]
        groups, keys = sizes(q)[2:]
        kind = None if decay is None else decay_of(sizes(decay)[3])
        rule = Recurrence(heads, groups, keys, values, scale, kind, beta is not None)
        function = linear_attention(rule, self.tiles)
        return self._recurrence(importer, function, [q, k, v, decay, beta, state], v)

    def _recurrence(
        self, importer: Any, function: Any, nodes: list[fx.Node | None], like: fx.Node
    ) -> Any:
        """Call a kernel whose last argument is a state; it gives one as `like`, and the state."""
        from tvm import relax

        builder = importer.block_builder
        name = builder.add_func(function, function.attrs["lcc.kernel"])
        args = [importer.env[node] for node in nodes if node is not None]
        places, types = [-1, len(args) - 1], [importer.env[like].ty, args[-1].ty]
        return builder.emit(relax.op.call_tir_inplace(name, args, places, types))

    def experts(self, node: fx.Node, importer: Any) -> Any:
        """Each token through the experts that it chose."""
        x, chosen, shares, up, down, up_bias, down_bias, *gate, _ = node.args
        count, width, inner = sizes(down)
        biased = up_bias is not None, down_bias is not None
        gated = sizes(up)[1] != inner
        layer = Experts(count, sizes(chosen)[1], width, inner, *gate, *biased, gated)  # type: ignore[call-arg]
        function = experts(layer, self.tiles)
        nodes = (x, chosen, shares, up, down, up_bias, down_bias)
        args = [importer.env[each] for each in nodes if each is not None]
        return self._call(importer, function, args, list(args[0].ty.shape.values), "float32")

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

    def topk(self, node: fx.Node, importer: Any) -> Any:
        """The k highest of each row, in order, and where they were."""
        from tvm import relax

        x, k, *axis = node.args
        if not isinstance(k, int) or k > rows.FEW:
            return highest(node, importer)
        assert not axis or axis[0] in (-1, len(sizes(x)) - 1)
        value, builder = importer.env[x], importer.block_builder
        shape = [*value.ty.shape.values[:-1], k]
        name = builder.add_func(rows.highest(sizes(x), k), "highest")
        types = [relax.TensorType(shape, dtype) for dtype in ("float32", "int64")]
        return builder.emit(relax.call_tir(name, [value], types))

    def _log_sum(self, x: fx.Node, importer: Any) -> Any:
        value = importer.env[x]
        shape = [*value.ty.shape.values[:-1], 1]
        function = rows.log_sum(self.tiles, sizes(x))
        return self._call(importer, function, [value], shape, "float32")

    def gather(self, node: fx.Node, importer: Any) -> Any:
        """Some of each row; of a log_softmax, only these are computed."""
        from tvm import relax

        source, axis, index = node.args
        emit, logits = importer.block_builder.emit, source.args[0]
        if str(source.target) != "aten.log_softmax.int":
            x = importer.env[source]
            places = inside(importer, x, axis, importer.env[index])
            return emit(relax.op.gather_elements(x, places, axis))
        places = inside(importer, importer.env[logits], axis, importer.env[index])
        picked = emit(relax.op.gather_elements(importer.env[logits], places, axis))
        return emit(relax.op.subtract(picked, self._log_sum(logits, importer)))


def _wider(importer: Any, x: Any, more: int) -> Any:
    """[H, M] with so many columns of zeros behind it."""
    from tvm import relax

    emit = importer.block_builder.emit
    heads = int(x.ty.shape.values[0])
    return emit(relax.op.concat([x, emit(relax.op.zeros((heads, more), "float32"))], axis=1))
