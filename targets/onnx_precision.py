"""The weights of an ONNX model in 8 or 4 bits, for ONNX Runtime's CPU kernels.

    precision   a linear layer                                   the embedding, and the LM head
    int8        MatMulInteger, 8 bits a weight and, token by     8 bits, in blocks of 32
                token, 8 bits an input
    int4        MatMulNBits, 4 bits a weight, in blocks of 32    the same
    given       MatMulNBits, in the levels that the checkpoint   the same, where its levels are
                has, 4 or 8 bits; float32 where it has none      about zero

Why these, and not others of the same size, was measured: docs/precision.md. Activations between the
operators, norms, attention and the cache stay float32.
"""

from collections.abc import Callable, Collection

import numpy as np
import onnx_ir as ir

from lcc.config import Precision
from lcc.errors import TargetError
from lcc.ir.weight_reads import Latest
from lcc.targets.low_bits import BLOCK
from lcc.targets.onnx_matrix import Matrix
from lcc.targets.onnx_rewriter import MICROSOFT, Rewriter

_BYTES_OF_INPUTS = 4  # MatMulNBits multiplies inputs of 8 bits, rounded block by block
_MOST_ADDED_BY_PRODUCT = 32_768  # inputs: the matrix of ones grows with their square
_RESHAPING = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")


def lower_precision(
    model: ir.Model, precision: Precision, *, exact: Collection[ir.Node] = ()
) -> int:
    """Replace every matrix of weights, in place; returns how many were.

    exact   products that stay as they are

    Matrices with fewer than 32 inputs stay, too.

    Raises:
        TargetError: one cannot be replaced, so that the model would not be what its name says.
    """
    layer: dict[str, Callable] = {
        "int8": _integer_product,
        "int4": _blocked_product,
        "given": _given_product,
    }
    graph, latest = Rewriter(model), Latest()
    count = 0
    for node in list(model.graph):
        new = None
        if node in exact:
            continue
        if node.op_type == "Gather" and _of_tokens(node):
            table = Matrix(node.inputs[0], latest, is_table=True)
            if precision != "given" or table.is_about_zero:
                new = _table_rows(graph, node, table)
        elif node.op_type == "MatMul" and (value := _transposed(node)) is not None:
            table = Matrix(value, latest, is_table=True)
            if precision != "given" or table.is_about_zero:
                new = _table_product(graph, node, table)
        elif node.op_type in ("MatMul", "Gemm") and (weight := _weight(node, latest)):
            if weight.shape[0] < BLOCK:
                continue
            if precision == "given" and weight.rounded is None:
                continue
            new = layer[precision](graph, node.inputs[0], weight)
            new = _with_bias(graph, node, new)
        if new is not None:
            graph.put_in_place_of(node, new)
            count += 1
    graph.clean()
    return count


def _integer_product(graph: Rewriter, x: ir.Value, weight: Matrix) -> ir.Value:
    """[.., Q, K] float32 -> [.., Q, N]: each token and each column of weights has its own scale."""
    inputs, outputs = weight.shape
    levels, scales = weight.columns_of_8_bits()
    sizes = None
    if x.meta.get("rank", len(x.shape or ())) > 3:  # one row after the other, and back
        sizes = graph.add("Shape", (x,), end=-1)
        if ("rows", x) not in graph.shared:
            rows = graph.constant(f"rows_of_{inputs}", np.array([-1, inputs], np.int64))
            graph.shared["rows", x] = graph.add("Reshape", (x, rows))
        x = graph.shared["rows", x]
    if ("int8", x) not in graph.shared:
        graph.shared["int8", x] = _tokens_of_8_bits(graph, x)
    x_levels, x_scales = graph.shared["int8", x]
    given = (
        x_levels,
        graph.constant_of(levels),
        graph.constant("one", np.array(1, np.float32)),
        graph.constant_of(scales),
        graph.constant("middle", np.array(128, np.uint8)),
    )
    product = graph.add("MatMulIntegerToFloat", given, MICROSOFT)
    product = graph.add("Mul", (product, x_scales))
    if sizes is None:
        return product
    width = graph.constant(f"{weight.name}.outputs", np.array([outputs], np.int64))
    return graph.add("Reshape", (product, graph.add("Concat", (sizes, width), axis=0)))


def _tokens_of_8_bits(graph: Rewriter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Levels uint8 like x, about 128, and their scales [.., Q, 1].

    One scale for a whole chunk (DynamicQuantizeLinear) lets the largest token round all others.
    """
    last = graph.constant("last_axis", np.array([-1], np.int64))
    largest = graph.add("ReduceMax", (graph.add("Abs", (x,)), last), keepdims=1)
    scales = graph.add("Mul", (largest, graph.constant("of_127", np.array(1 / 127, np.float32))))
    scales = graph.add("Max", (scales, graph.constant("least", np.array(1e-30, np.float32))))
    flat = graph.add("Reshape", (scales, graph.constant("flat", np.array([-1], np.int64))))
    middles = graph.add(
        "Expand", (graph.constant("middle", np.array(128, np.uint8)), graph.add("Shape", (flat,)))
    )
    return graph.add("QuantizeLinear", (x, flat, middles), axis=-2), scales


def _blocked_product(graph: Rewriter, x: ir.Value, weight: Matrix) -> ir.Value:
    """[.., Q, K] float32 -> [.., Q, N].

    What a block's levels are off zero, times the sum of its inputs, is a product of its own: a
    thirty-second of the work. The operator's own zero points are whole levels: of SmolLM2, whose
    weights had 16 levels before, they raise the perplexity by a quarter (docs/precision.md).
    """
    levels, scales, offsets = weight.blocks_of_4_bits()
    product = _n_bits(graph, x, levels, scales, weight.shape, 4)
    return _with_offsets(graph, x, product, weight, offsets, BLOCK)


def _given_product(graph: Rewriter, x: ir.Value, weight: Matrix) -> ir.Value:
    """The numbers that the checkpoint has, in as many bits as it has them: 4, or 5 to 8 in 8."""
    assert weight.rounded is not None
    if weight.rounded.bits == 4:
        return _blocked_product(graph, x, weight)
    levels, scales, offsets = weight.known_blocks()
    product = _n_bits(graph, x, levels, scales, weight.shape, 8, weight.rounded.block)
    if offsets is None:
        return product
    return _with_offsets(graph, x, product, weight, offsets, weight.rounded.block)


def _with_offsets(
    graph: Rewriter,
    x: ir.Value,
    product: ir.Value,
    weight: Matrix,
    offsets: ir.TensorProtocol,
    block: int,
) -> ir.Value:
    if ("sums", x, block) not in graph.shared:
        graph.shared["sums", x, block] = _sums(graph, x, weight.shape[0], block)
    more = (graph.shared["sums", x, block], graph.constant_of(offsets))
    return graph.add("Add", (product, graph.add("MatMul", more)))


def _sums(graph: Rewriter, x: ir.Value, inputs: int, block: int) -> ir.Value:
    """[.., Q, K] -> [.., Q, K / block]: what the inputs of each block add up to."""
    name = f"blocks_of_{inputs}" if block == BLOCK else f"blocks_of_{inputs}_{block}"
    if inputs <= _MOST_ADDED_BY_PRODUCT or inputs % block:
        ones = np.kron(np.eye(-(-inputs // block)), np.ones((block, 1)))[:inputs]
        return graph.add("MatMul", (x, graph.constant(name, ones.astype(np.float32))))
    sizes = graph.constant(name, np.array([-1, block], np.int64))
    sizes = graph.add("Concat", (graph.add("Shape", (x,), end=-1), sizes), axis=0)
    last = graph.constant("last_axis", np.array([-1], np.int64))
    return graph.add("ReduceSum", (graph.add("Reshape", (x, sizes)), last), keepdims=0)


def _n_bits(
    graph: Rewriter,
    x: ir.Value,
    levels: ir.TensorProtocol,
    scales: ir.TensorProtocol,
    shape: tuple[int, int],
    bits: int,
    block: int = BLOCK,
) -> ir.Value:
    return graph.add(
        "MatMulNBits",
        (x, graph.constant_of(levels), graph.constant_of(scales)),
        MICROSOFT,
        K=shape[0],
        N=shape[1],
        bits=bits,
        block_size=block,
        accuracy_level=_BYTES_OF_INPUTS,
    )


def _table_product(graph: Rewriter, node: ir.Node, table: Matrix) -> ir.Value:
    """Logits, from a table [V, K] that is perhaps the embedding too."""
    _check_rows(table)
    levels, scales = table.rows_of_8_bits()
    x = node.inputs[0]
    assert x is not None
    vocabulary, inputs = table.shape
    return _n_bits(graph, x, levels, scales, (inputs, vocabulary), 8, int(levels.shape[2]))


def _table_rows(graph: Rewriter, node: ir.Node, table: Matrix) -> ir.Value:
    """Rows of a table [V, K]: the same bytes as those of `_table_product`."""
    _check_rows(table)
    tokens = node.inputs[1]
    assert tokens is not None
    levels, scales = table.rows_of_8_bits(flat=True)
    return graph.add(
        "GatherBlockQuantized",
        (graph.constant_of(levels), tokens, graph.constant_of(scales)),
        MICROSOFT,
        bits=8,
        block_size=int(levels.shape[1] // scales.shape[1]),
        gather_axis=0,
        quantize_axis=1,
    )


def _check_rows(table: Matrix) -> None:
    if table.shape[1] % BLOCK:
        raise TargetError(
            f"{table.name}: rows of {table.shape[1]} numbers, --precision int8 and int4 want a "
            f"multiple of {BLOCK}; leave --precision out"
        )


def _with_bias(graph: Rewriter, node: ir.Node, product: ir.Value) -> ir.Value:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return product if bias is None else graph.add("Add", (product, bias))


def _weight(node: ir.Node, latest: Latest) -> Matrix | None:
    """[K, N] float32 of a layer; None = it multiplies something else."""
    value = node.inputs[1]
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    transposed = False
    if node.op_type == "Gemm":
        numbers = {name: node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
        if node.attributes.get_int("transA", 0) or set(numbers.values()) != {1.0}:
            raise TargetError(f"{value.name}: its Gemm scales or transposes what it multiplies")
        transposed = bool(node.attributes.get_int("transB", 0))
    if value.const_value.dtype != ir.DataType.FLOAT:
        return None
    return Matrix(value, latest, transposed=transposed)


def _transposed(node: ir.Node) -> ir.Value | None:
    """The table [V, K] that a product takes transposed."""
    value = node.inputs[1]
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "Transpose":
        return None
    table = producer.inputs[0]
    return table if table is not None and table.const_value is not None else None


def _of_tokens(node: ir.Node) -> bool:
    """Whether a Gather looks up rows of a table [V, K] by the tokens themselves."""
    table, value = node.inputs
    if table is None or table.const_value is None or len(table.const_value.shape) != 2:
        return False
    if node.attributes.get_int("axis", 0) != 0:
        return False
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in _RESHAPING:
            return False
        value = producer.inputs[0]
    return value is not None and value.name == "tokens"
