"""`lcc::Experts` -> ONNX Runtime's kernels for mixtures of experts, in any precision.

    fp32        com.microsoft.MoE
    int8, int4  com.microsoft.QMoE, blocks of 32 weights of a row, each with a scale
    others      a loop over the experts that some token chose (`onnx_expert_loop.py`): where the
                gate is none of the kernels', or where shares may be negative, for which the
                kernels are wrong

In all of them a token costs the experts that it chose, and no others.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lcc.config import Precision
from lcc.errors import TargetError
from lcc.targets.low_bits import BLOCK, blocks_about_zero
from lcc.targets.onnx_expert_loop import expert_loop
from lcc.targets.onnx_rewriter import MICROSOFT, Rewriter

BITS = {"int8": 8, "int4": 4}
_LEAST = 1e-37  # share of an expert that is not chosen: its logarithm is finite
_FAST = 4  # of 4 bits, the products take inputs of 8 bits, as those of other layers do


def lower_experts(model: ir.Model, precision: Precision) -> set[ir.Node]:
    """Replace every `lcc::Experts`, in place.

    Returns the products by which routers choose. They stay in float32: a rounded one chooses other
    experts.

    Raises:
        TargetError: weights that cannot be stored in so few bits.
    """
    graph, routers = Rewriter(model), set[ir.Node]()
    for node in list(model.graph):
        if (node.domain, node.op_type) != ("lcc", "Experts"):
            continue
        routers |= _routers(node.inputs[1]) | _routers(node.inputs[2])
        site = _Site(graph, node, precision)
        graph.put_in_place_of(node, site.lowered())
    if routers:
        graph.clean()
        del model.opset_imports["lcc"]
    return routers


class _Site:
    """One `lcc::Experts`: its weights as the kernels want them, and what takes its place."""

    def __init__(self, graph: Rewriter, node: ir.Node, precision: Precision) -> None:
        self.graph, self.precision, self.attributes = graph, precision, node.attributes
        self.x, self.chosen, self.shares = node.inputs[:3]
        self.name = str(node.inputs[3].name)
        up, down, *biases = (each and array_of(each) for each in node.inputs[3:])
        assert up is not None
        assert down is not None
        self.up, self.down, self.biases = up, down, [*biases, None, None][:2]
        if self.attributes.get_int("gated") and not self.attributes.get_int("interleaved"):
            self.up = _interleaved(up)
            self.biases[0] = None if self.biases[0] is None else _interleaved(self.biases[0])
        self.experts, self.width = up.shape[0], up.shape[2]

    def lowered(self) -> ir.Value:
        """What takes the place of the node."""
        gated = self.attributes.get_int("gated") == 1
        known = gated and self.attributes.get_string("activation") == "silu"
        if not known or not not_negative(self.shares):
            return self._loop()
        return self._float() if self.precision == "fp32" else self._low_bits()

    def _float(self) -> ir.Value:
        """The kernel takes a softmax of what it is given, so it is given logarithms."""
        graph = self.graph
        least = graph.constant("least_share", np.array(_LEAST, np.float32))
        logits = graph.add("Log", (graph.add("Max", (self._dense(), least)),))
        weights = (self._weight("up", self.up), self._bias(0), self._weight("down", self.down))
        inputs = (self.x, logits, *weights, self._bias(1))
        out = graph.add("MoE", inputs, MICROSOFT, **self._numbers())
        axis = graph.constant("last_axis", np.array([-1], np.int64))
        total = graph.add("ReduceSum", (self.shares, axis), keepdims=1)
        return graph.add("Mul", (out, total))

    def _low_bits(self) -> ir.Value:
        shares = self._dense()
        first, second = self._blocks("up", self.up), self._blocks("down", self.down)
        weights = (*first, self._bias(0), *second, self._bias(1))
        inputs = (self.x, shares, *weights, *[None] * 6, shares)
        return self.graph.add(
            "QMoE",
            inputs,
            MICROSOFT,
            expert_weight_bits=BITS[self.precision],
            block_size=BLOCK,
            accuracy_level=_FAST,
            weights_prepacked=0,
            **self._numbers(),
        )

    def _loop(self) -> ir.Value:
        inputs = (self.x, self.chosen, self.shares)
        weights: list[Sequence[ir.Value]]
        if self.precision == "fp32":
            weights = [(self._weight("up", self.up),), (self._weight("down", self.down),)]
        else:
            weights = [self._blocks("up", self.up), self._blocks("down", self.down)]
        biases = (self._bias(0), self._bias(1))
        bits = BITS.get(self.precision)
        return expert_loop(self.graph, self.name, inputs, weights, biases, self.attributes, bits)

    def _dense(self) -> ir.Value:
        """[T, E] the share of every expert in every token, zero of those that it did not choose."""
        graph = self.graph
        count = graph.constant(f"experts_{self.experts}", np.array([self.experts], np.int64))
        sizes = graph.add("Concat", (graph.add("Shape", (self.x,), end=1), count), axis=0)
        inputs = (graph.add("ConstantOfShape", (sizes,)), self.chosen, self.shares)
        return graph.add("ScatterElements", inputs, axis=1, reduction="add")

    def _numbers(self) -> dict[str, Any]:
        """Attributes that both kernels have; gate and other half are neighbours."""
        limit = self.attributes.get_float("limit")
        return {
            "k": self.attributes.get_int("count"),
            "activation_type": "swiglu",
            "swiglu_fusion": 1,
            "activation_alpha": self.attributes.get_float("alpha"),
            "activation_beta": self.attributes.get_float("beta"),
            **({} if math.isinf(limit) else {"swiglu_limit": limit}),
        }

    def _weight(self, what: str, array: np.ndarray) -> ir.Value:
        return self.graph.constant(f"{self.name}.{what}", np.ascontiguousarray(array))

    def _bias(self, place: int) -> ir.Value | None:
        bias = self.biases[place]
        return None if bias is None else self._weight(f"bias_{place}", bias)

    def _blocks(self, what: str, array: np.ndarray) -> tuple[ir.Value, ir.Value]:
        """Levels [E, N, K * bits / 8] and scales [E, N, K / BLOCK] of weights [E, N, K]."""
        if what == "down":  # as many rows above it are zero, and what they give is
            array = np.pad(array, ((0, 0), (0, 0), (0, -array.shape[2] % BLOCK)))
        elif pad := -array.shape[1] % (2 * BLOCK):
            array = np.pad(array, ((0, 0), (0, pad), (0, 0)))
            if self.biases[0] is not None and self.biases[0].shape[1] < array.shape[1]:
                self.biases[0] = np.pad(self.biases[0], ((0, 0), (0, pad)))
        if array.shape[2] % BLOCK:
            raise TargetError(
                f"{self.name}: experts of {array.shape[2]} inputs, --precision int8 and int4 want "
                f"a multiple of {BLOCK}; leave --precision out"
            )
        levels, scales, _ = blocks_about_zero(array, BITS[self.precision])
        name = f"{self.name}.{what}.{self.precision}"
        return self.graph.constant(name, levels), self.graph.constant(f"{name}.scales", scales)


def _interleaved(array: np.ndarray) -> np.ndarray:
    """Of [E, 2I, ..], the rows of both halves in turn."""
    first, other = np.split(array, 2, axis=1)
    return np.stack((first, other), axis=2).reshape(array.shape)


def array_of(value: ir.Value) -> np.ndarray:
    """What a constant holds, or what is only another view of constants.

    Raises:
        TargetError: it is computed while the model reads.
    """
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or node.op_type not in ("Transpose", "Reshape", "Concat", "Slice"):
        raise TargetError(
            f"{value.name}: weights of experts that the model computes as it reads; wanted "
            "constants"
        )
    first, *others = (array_of(each) for each in node.inputs if each is not None)
    if node.op_type == "Transpose":
        return first.transpose(node.attributes.get_ints("perm"))
    if node.op_type == "Reshape":
        return first.reshape(others[0])
    if node.op_type == "Concat":
        return np.concatenate([first, *others], node.attributes.get_int("axis"))
    cut = [slice(None)] * first.ndim
    for start, end, axis in zip(*(each.tolist() for each in others[:3]), strict=True):
        cut[axis] = slice(start, end)
    return first[tuple(cut)]


# Operators that give no negative number, and those that give none where they are given none.
_POSITIVE = frozenset({"Softmax", "Sigmoid", "Relu", "Abs", "Exp", "Sqrt", "Softplus"})
_KEEPS = frozenset(
    {
        *("Add", "Mul", "Div", "Max", "Min", "Sum", "ReduceSum", "ReduceMax", "ReduceMean"),
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Cast", "Identity"),
        *("Gather", "GatherElements", "GatherND", "Slice", "TopK", "Concat", "Split"),
    }
)
_PLACES = frozenset(  # of which only the first input holds numbers, the others say which
    {
        *("Reshape", "Squeeze", "Unsqueeze", "Expand", "ReduceSum", "ReduceMax", "ReduceMean"),
        *("Gather", "GatherElements", "GatherND", "Slice", "TopK", "Split"),
    }
)


def not_negative(value: ir.Value | None) -> bool:
    """Whether a value is known to hold no negative number, as the shares of a usual router."""
    if value is None:
        return True
    if value.const_value is not None:
        return bool((value.const_value.numpy() >= 0).all())
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "Where":
        return all(not_negative(each) for each in node.inputs[1:])
    if node.op_type == "Clip":
        least = node.inputs[1] if len(node.inputs) > 1 else None
        return not_negative(node.inputs[0]) or (least is not None and not_negative(least))
    if node.op_type not in _KEEPS:
        return node.op_type in _POSITIVE
    inputs = node.inputs[:1] if node.op_type in _PLACES else node.inputs
    return all(not_negative(each) for each in inputs)


def _routers(value: ir.Value | None) -> set[ir.Node]:
    """The products with weights that a router's choice and shares come from."""
    found, stack, seen = set[ir.Node](), [value], set[ir.Node]()
    while stack:
        each = stack.pop()
        node = None if each is None else each.producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.op_type in ("MatMul", "Gemm"):
            found.add(node)
        else:
            stack.extend(node.inputs)
    return found
