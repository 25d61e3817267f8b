"""Experts in standard operators: a loop over those that some token of the step chose.

One turn of it picks the weights of an expert and the tokens that chose it, and adds what the expert
makes of them. In 8 or 4 bits, the weights of the expert are widened then.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lcc.targets.low_bits import BLOCK
from lcc.targets.onnx_rewriter import MICROSOFT, Rewriter

Weights = Sequence[ir.Value]  # [E, N, K], or levels and scales of it


def expert_loop(
    graph: Rewriter,
    name: str,
    inputs: Sequence[ir.Value | None],
    weights: Sequence[Weights],
    biases: Sequence[ir.Value | None],
    attributes: Any,
    bits: int | None,
) -> ir.Value:
    """[T, H] of the inputs x [T, H], chosen [T, K] and shares [T, K].

    name        that no other loop has
    weights     of the first product, its rows in turn for the gate and the other half, and of the
                second one
    attributes  activation, alpha, beta and limit of `lcc::experts`; gated
    bits        of the weights; None = they are in float32
    """
    x, chosen, shares = inputs
    flat = graph.add("Reshape", (chosen, graph.constant("flat", np.array([-1], np.int64))))
    hit = graph.add("Unique", (flat,))
    zeros = graph.add("ConstantOfShape", (graph.add("Shape", (x,)),))
    body = _Body(graph, name)
    turn, going, so_far = body.inputs()
    expert = body.add("Gather", (hit, turn))
    where = body.add("NonZero", (body.add("Equal", (chosen, expert)),))  # [2, n]
    where = body.add("Transpose", (where,), perm=[1, 0])
    token = body.add("Gather", (where, graph.constant("zeroth", np.array(0, np.int64))), axis=1)
    rows = body.add("Gather", (x, token))  # [n, H]
    rows = body.product(rows, weights[0], biases[0], expert, bits)
    rows = body.gate(rows, attributes)
    rows = body.product(rows, weights[1], biases[1], expert, bits)
    axis = graph.constant("last_axis", np.array([-1], np.int64))
    share = body.add("Unsqueeze", (body.add("GatherND", (shares, where)), axis))
    token = body.add("Unsqueeze", (token, axis))
    made = (so_far, token, body.add("Mul", (rows, share)))
    out = body.add("ScatterND", made, reduction="add")
    goes_on = body.add("Identity", (going,))
    page = ir.Graph([turn, going, so_far], [goes_on, out], nodes=body.nodes, name=name)
    none = graph.constant("always", np.array(True))
    return graph.add("Loop", (graph.add("Size", (hit,)), none, zeros), body=page)


class _Body:
    """Nodes of the loop's graph; its constants are those of the graph around it."""

    def __init__(self, graph: Rewriter, name: str) -> None:
        self.graph, self.name, self.nodes = graph, name, list[ir.Node]()

    def add(
        self, operator: str, inputs: Sequence[ir.Value | None], domain: str = "", **attributes: Any
    ) -> ir.Value:
        """A new node; its only output."""
        node = ir.node(operator, inputs, attributes=attributes, domain=domain)
        node.outputs[0].name = f"{self.name}.turn_{len(self.nodes)}"  # as nothing around it
        self.nodes.append(node)
        return node.outputs[0]

    def inputs(self) -> list[ir.Value]:
        """Number of the turn, whether the loop goes on, and the sum so far."""
        kinds = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.FLOAT)
        return [
            ir.Value(
                name=f"{self.name}.{what}",
                type=ir.TensorType(kind),
                shape=None if what == "so_far" else ir.Shape([]),
            )
            for what, kind in zip(("turn", "going", "so_far"), kinds, strict=True)
        ]

    def product(
        self,
        rows: ir.Value,
        weights: Weights,
        bias: ir.Value | None,
        expert: ir.Value,
        bits: int | None,
    ) -> ir.Value:
        """[n, N] of rows [n, K]: by the weights of one expert."""
        if bits is None:
            weight = self.add("Gather", (weights[0], expert))
        else:
            sizes = {"bits": bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 2}
            inputs = (weights[0], expert, weights[1])
            weight = self.add("GatherBlockQuantized", inputs, MICROSOFT, **sizes)
        more = () if bias is None else (self.add("Gather", (bias, expert)),)
        return self.add("Gemm", (rows, weight, *more), transB=1)

    def gate(self, rows: ir.Value, attributes: Any) -> ir.Value:
        """[n, I] of rows [n, 2I]: see `lcc.passes.experts.gate`; of [n, I] without a gate."""
        if not attributes.get_int("gated"):
            return self.activation(rows, attributes)
        first, other = (self._every_second(rows, place) for place in (0, 1))
        if not math.isinf(limit := attributes.get_float("limit")):
            first = self.add("Clip", (first, None, self._number(limit)))
            other = self.add("Clip", (other, self._number(-limit), self._number(limit)))
        if (beta := attributes.get_float("beta")) != 0:
            other = self.add("Add", (other, self._number(beta)))
        return self.add("Mul", (self.activation(first, attributes), other))

    def activation(self, rows: ir.Value, attributes: Any) -> ir.Value:
        """One of `lcc.passes.experts.ACTIVATIONS`."""
        scaled = rows
        if (alpha := attributes.get_float("alpha")) != 1:
            scaled = self.add("Mul", (rows, self._number(alpha)))
        activation = attributes.get_string("activation")
        if activation == "silu":
            return self.add("Mul", (rows, self.add("Sigmoid", (scaled,))))
        if activation in ("relu", "relu2"):
            relu = self.add("Relu", (scaled,))
            return relu if activation == "relu" else self.add("Mul", (relu, relu))
        way = "tanh" if activation == "gelu_tanh" else "none"
        return self.add("Gelu", (scaled,), approximate=way)

    def _every_second(self, rows: ir.Value, first: int) -> ir.Value:
        numbers = (first, np.iinfo(np.int64).max, 1, 2)  # start, end, axis, step
        names = ("from_0" if first == 0 else "from_1", "to_end", "axis_1", "step_2")
        parts = [
            self.graph.constant(name, np.array([number], np.int64))
            for name, number in zip(names, numbers, strict=True)
        ]
        return self.add("Slice", (rows, *parts))

    def _number(self, number: float) -> ir.Value:
        return self.graph.constant(f"number_{number:g}", np.array(number, np.float32))
