"""The weights of an ONNX model in 8 or 4 bits, for ONNX Runtime's CPU kernels.

    precision   a linear layer                                   the embedding, and the LM head
    int8        MatMulInteger, 8 bits a weight and, token by     8 bits, in blocks of 32
                token, 8 bits an input
    int4        MatMulNBits, 4 bits a weight, in blocks of 32    the same

Why these, and not others of the same size, was measured: docs/precision.md. Activations between the
operators, norms, attention and the cache stay float32.
"""

from collections.abc import Callable, Collection

import numpy as np
import onnx_ir as ir

from lcc.config import Precision
from lcc.errors import TargetError
from lcc.targets.low_bits import BLOCK, blocks_of_4_bits, columns_of_8_bits, rows_of_8_bits
from lcc.targets.onnx_rewriter import MICROSOFT, Rewriter

_BYTES_OF_INPUTS = 4  # MatMulNBits multiplies inputs of 8 bits, rounded block by block
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
    layer: dict[str, Callable] = {"int8": _integer_product, "int4": _blocked_product}
    graph = Rewriter(model)
    count = 0
    for node in list(model.graph):
        new = None
        if node in exact:
            continue
        if node.op_type == "Gather" and _of_tokens(node):
            new = _table_rows(graph, node)
        elif node.op_type == "MatMul" and (table := _transposed(node)) is not None:
            new = _table_product(graph, node, table)
        elif node.op_type in ("MatMul", "Gemm") and (weight := _weight(node)) is not None:
            if len(weight) < BLOCK:
                continue
            new = layer[precision](graph, node.inputs[0], weight, node.inputs[1].name)
            new = _with_bias(graph, node, new)
        if new is not None:
            graph.put_in_place_of(node, new)
            count += 1
    graph.clean()
    return count


def _integer_product(graph: Rewriter, x: ir.Value, weight: np.ndarray, name: str) -> ir.Value:
    """[.., Q, K] float32 -> [.., Q, N]: each token and each column of weights has its own scale."""
    levels, scales = columns_of_8_bits(weight)
    sizes = None
    if x.meta.get("rank", len(x.shape or ())) > 3:  # one row after the other, and back
        sizes = graph.add("Shape", (x,), end=-1)
        if ("rows", x) not in graph.shared:
            rows = graph.constant(f"rows_of_{len(weight)}", np.array([-1, len(weight)], np.int64))
            graph.shared["rows", x] = graph.add("Reshape", (x, rows))
        x = graph.shared["rows", x]
    if ("int8", x) not in graph.shared:
        graph.shared["int8", x] = _tokens_of_8_bits(graph, x)
    x_levels, x_scales = graph.shared["int8", x]
    inputs = (
        x_levels,
        graph.constant(f"{name}.int8", levels),
        graph.constant("one", np.array(1, np.float32)),
        graph.constant(f"{name}.scales", scales),
        graph.constant("middle", np.array(128, np.uint8)),
    )
    product = graph.add("MatMulIntegerToFloat", inputs, MICROSOFT)
    product = graph.add("Mul", (product, x_scales))
    if sizes is None:
        return product
    width = graph.constant(f"{name}.outputs", np.array([weight.shape[1]], np.int64))
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


def _blocked_product(graph: Rewriter, x: ir.Value, weight: np.ndarray, name: str) -> ir.Value:
    """[.., Q, K] float32 -> [.., Q, N].

    What a block's levels are off zero, times the sum of its inputs, is a product of its own: a
    thirty-second of the work. The operator's own zero points are whole levels: of SmolLM2, whose
    weights had 16 levels before, they raise the perplexity by a quarter (docs/precision.md).
    """
    inputs, outputs = weight.shape
    levels, scales, offsets = blocks_of_4_bits(weight)
    product = _n_bits(graph, x, levels, scales, f"{name}.int4", inputs, outputs, 4)
    if ("sums", x) not in graph.shared:
        ones = np.kron(np.eye(scales.shape[1]), np.ones((BLOCK, 1)))[:inputs].astype(np.float32)
        graph.shared["sums", x] = graph.add(
            "MatMul", (x, graph.constant(f"blocks_of_{inputs}", ones))
        )
    assert offsets is not None
    more = (graph.shared["sums", x], graph.constant(f"{name}.offsets", offsets))
    return graph.add("Add", (product, graph.add("MatMul", more)))


def _n_bits(
    graph: Rewriter,
    x: ir.Value,
    levels: np.ndarray,
    scales: np.ndarray,
    name: str,
    inputs: int,
    outputs: int,
    bits: int,
) -> ir.Value:
    return graph.add(
        "MatMulNBits",
        (x, graph.constant(name, levels), graph.constant(f"{name}.scales", scales)),
        MICROSOFT,
        K=inputs,
        N=outputs,
        bits=bits,
        block_size=BLOCK,
        accuracy_level=_BYTES_OF_INPUTS,
    )


def _table_product(graph: Rewriter, node: ir.Node, table: ir.Value) -> ir.Value:
    """Logits, from a table [V, K] that is perhaps the embedding too."""
    levels, scales, _ = rows_of_8_bits(_table(table))
    x = node.inputs[0]
    assert x is not None
    vocabulary, inputs = _numbers(table).shape
    return _n_bits(graph, x, levels, scales, f"{table.name}.int8", inputs, vocabulary, 8)


def _table_rows(graph: Rewriter, node: ir.Node) -> ir.Value:
    """Rows of a table [V, K]: the same bytes as those of `_table_product`."""
    table, tokens = node.inputs
    assert table is not None
    assert tokens is not None
    levels, scales, _ = rows_of_8_bits(_table(table))
    flat = levels.reshape(len(levels), -1)
    name = f"{table.name}.int8"
    return graph.add(
        "GatherBlockQuantized",
        (graph.constant(name, flat), tokens, graph.constant(f"{name}.scales", scales)),
        MICROSOFT,
        bits=8,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )


def _table(value: ir.Value) -> np.ndarray:
    """[V, K] float32 of an embedding or LM head."""
    array = _numbers(value)
    if array.shape[1] % BLOCK:
        raise TargetError(
            f"{value.name}: rows of {array.shape[1]} numbers, --precision int8 and int4 want a "
            f"multiple of {BLOCK}; leave --precision out"
        )
    return array


def _with_bias(graph: Rewriter, node: ir.Node, product: ir.Value) -> ir.Value:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return product if bias is None else graph.add("Add", (product, bias))


def _weight(node: ir.Node) -> np.ndarray | None:
    """[K, N] float32 of a layer; None = it multiplies something else."""
    value = node.inputs[1]
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    array = _numbers(value)
    if node.op_type == "Gemm":
        numbers = {name: node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
        if node.attributes.get_int("transA", 0) or set(numbers.values()) != {1.0}:
            raise TargetError(f"{value.name}: its Gemm scales or transposes what it multiplies")
        array = array.T if node.attributes.get_int("transB", 0) else array
    return array if array.dtype == np.float32 else None


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


def _numbers(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()
