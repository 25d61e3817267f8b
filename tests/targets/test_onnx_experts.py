"""lcc::experts in ONNX Runtime: every gate and precision, and only the experts that are chosen."""

import math

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lcc.config import Precision
from lcc.errors import TargetError
from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.experts import gate
from lcc.targets.onnx_experts import BITS, lower_experts
from lcc.targets.onnx_runtime import to_onnx

TOKENS, EXPERTS, WIDTH = 9, 4, 64
CHOSEN = torch.tensor([[0, 1], [1, 3], [0, 3], [3, 1], [1, 0], [0, 1], [3, 0], [1, 3], [0, 3]])
GATES = {  # what the kernels have, and what they have not
    "swiglu": ("silu", 1.0, 0.0, math.inf, False),
    "gpt_oss": ("silu", 1.702, 1.0, 0.6, True),
    "gelu": ("gelu_tanh", 1.0, 0.0, math.inf, False),
    "clamped gelu": ("gelu", 1.3, 0.5, 0.6, True),
    "relu": ("relu", 1.0, 0.0, math.inf, False),
}


class Layer(nn.Module):
    """Experts with biases; what nobody chooses (expert 2) is not a number."""

    def __init__(
        self, kind: str, inner: int = 96, *, biased: bool = True, signed: bool = False
    ) -> None:
        """`signed`: shares are as given; otherwise their absolute values."""
        super().__init__()
        self.signed = signed
        draw = torch.Generator().manual_seed(0)
        self.up = nn.Parameter(torch.randn(EXPERTS, 2 * inner, WIDTH, generator=draw) * 0.2)
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, inner, generator=draw) * 0.2)
        self.biases = [None, None]
        if biased:
            self.up_bias = nn.Parameter(torch.randn(EXPERTS, 2 * inner, generator=draw))
            self.down_bias = nn.Parameter(torch.randn(EXPERTS, WIDTH, generator=draw))
            self.biases = [self.up_bias, self.down_bias]
        self.numbers = GATES[kind]
        self.turned = kind == "gpt_oss"  # stored the other way
        if self.turned:
            self.up.data = self.up.data.transpose(1, 2).contiguous()

    def forward(self, x: Tensor, shares: Tensor, chosen: Tensor) -> Tensor:
        up = self.up.transpose(1, 2) if self.turned else self.up
        shares = shares if self.signed else shares.abs()
        return torch.ops.lcc.experts(x, chosen, shares, up, self.down, *self.biases, *self.numbers)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    shares = torch.rand(TOKENS, 2, generator=draw) * 3 - 1.5
    assert (shares < 0).any()
    return torch.randn(TOKENS, WIDTH, generator=draw), shares, CHOSEN


def program_of(layer: Layer) -> Program:
    size = {0: ("tokens", torch.export.Dim("tokens", min=2, max=64))}
    names = ("x", Role.HIDDEN), ("shares", Role.ENTRY_SCORE), ("chosen", Role.SLOTS)
    given = [Input(Port(*port), value, size) for port, value in zip(names, inputs(), strict=True)]
    with torch.no_grad():
        return export(layer, ("experts",), given, [Port("out", Role.HIDDEN)])


def run(layer: Layer, precision: Precision) -> tuple[np.ndarray, list[str]]:
    """What ONNX Runtime computes, and the operators that it runs."""
    model = to_onnx(program_of(layer))
    assert not lower_experts(model, precision), "no router in it"
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = ("x", "shares", "chosen")
    feeds = {name: value.numpy() for name, value in zip(names, inputs(), strict=True)}
    return session.run(["out"], feeds)[0], [node.op_type for node in model.graph]


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Blocks of 32 of each row, to whole multiples of a sixteenth (or a 256th) of twice the most.

    Block by block and in Python's own floats.
    """
    out = weight.clone().reshape(-1, 32)
    for row in out:
        numbers = row.tolist()
        step = max(numbers, key=abs) / -(2 ** (bits - 1))
        most = 2 ** (bits - 1) - 1
        for i, number in enumerate(numbers):
            row[i] = min(most, round(number / step)) * step if step else 0.0
    return out.reshape(weight.shape)


@pytest.mark.parametrize("kind", GATES)
def test_float32_is_the_operator(kind: str) -> None:
    layer = Layer(kind)
    with torch.no_grad():
        wanted = layer(*inputs())
        layer.up.data[2] = layer.down.data[2] = torch.nan  # nobody chooses it
        got, operators = run(layer, "fp32")
    np.testing.assert_allclose(got, wanted.numpy(), atol=2e-5)
    assert ("MoE" if layer.numbers[0] == "silu" else "Loop") in operators


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_shares_that_may_be_negative_are_left_to_the_loop(precision: Precision) -> None:
    layer = Layer("swiglu", signed=True)
    with torch.no_grad():
        wanted = layer(*inputs()).numpy()
    got, operators = run(layer, precision)
    few = {"fp32": 1e-5, "int8": 0.02, "int4": 0.2}[precision]
    np.testing.assert_allclose(got, wanted, atol=few * np.abs(wanted).max())
    assert "Loop" in operators


@pytest.mark.parametrize("kind", ["swiglu", "gpt_oss", "gelu"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_few_bits_are_the_operator_with_rounded_weights(kind: str, precision: Precision) -> None:
    layer = Layer(kind)
    got, operators = run(layer, precision)
    with torch.no_grad():
        whole = layer(*inputs()).numpy()
        up = layer.up.transpose(1, 2) if layer.turned else layer.up
        up = rounded(up, BITS[precision])
        layer.up.data = up.transpose(1, 2) if layer.turned else up
        layer.down.data = rounded(layer.down, BITS[precision])
        wanted = layer(*inputs()).numpy()
    # The kernel rounds inputs to 8 bits, as that of other layers; the loop does not.
    kernel = layer.numbers[0] == "silu"
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, atol=(0.02 if kernel else 1e-5) * largest)
    assert np.abs(whole - wanted).max() > 1e-5 * largest, "else nothing was rounded"
    assert ("QMoE" if kernel else "Loop") in operators


def test_sizes_that_blocks_do_not_divide() -> None:
    """Inner sizes are filled up; the width of the model cannot be."""
    layer = Layer("gpt_oss", inner=40)
    got, _ = run(layer, "int8")
    with torch.no_grad():
        wanted = layer(*inputs()).numpy()
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()
    layer.up = nn.Parameter(layer.up.transpose(1, 2)[:, :, :40].contiguous())
    layer.down = nn.Parameter(layer.down[:, :40].contiguous())
    layer.down_bias = nn.Parameter(layer.down_bias[:, :40].contiguous())
    layer.biases[1], layer.turned = layer.down_bias, False
    module = program_of_width(layer, 40)
    with pytest.raises(TargetError, match=r"experts of 40 inputs, .* want a multiple of 32"):
        lower_experts(to_onnx(module), "int4")


def program_of_width(layer: Layer, width: int) -> Program:
    x, shares, chosen = inputs()
    names = ("x", Role.HIDDEN), ("shares", Role.ENTRY_SCORE), ("chosen", Role.SLOTS)
    values = (x[:, :width].contiguous(), shares, chosen)
    given = [Input(Port(*port), value) for port, value in zip(names, values, strict=True)]
    with torch.no_grad():
        return export(layer, ("experts",), given, [Port("out", Role.HIDDEN)])


class Routed(Layer):
    """The same behind a router."""

    def __init__(self) -> None:
        super().__init__("swiglu", biased=False)
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.after = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.router(x).softmax(-1).topk(2, dim=-1)
        return self.after(super().forward(x, shares, chosen))


def test_routers_stay_exact() -> None:
    """And only they: they are what the choice is computed from."""
    with torch.no_grad():
        program = export(
            Routed(),
            ("x",),
            [Input(Port("x", Role.HIDDEN), inputs()[0])],
            [Port("out", Role.HIDDEN)],
        )
    (router,) = lower_experts(to_onnx(program), "int4")
    shapes = [value.const_value.shape for value in router.inputs if value.const_value is not None]
    assert [tuple(shape) for shape in shapes] in ([(WIDTH, EXPERTS)], [(EXPERTS, WIDTH)])


def test_the_gate_is_the_oracles() -> None:
    """Guards the fixture: clamping changes something in the clamped gates."""
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for kind in ("gpt_oss", "clamped gelu"):
        name, alpha, beta, limit, interleaved = GATES[kind]
        one = gate(rows, name, alpha, beta, limit, interleaved)
        other = gate(rows, name, alpha, beta, math.inf, interleaved)
        assert (one - other).abs().max() > 0.1
