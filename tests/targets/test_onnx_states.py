"""lcc::causal_conv and lcc::linear_attention in ONNX Runtime, against loops over tokens."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.targets.onnx_runtime import to_onnx

LENGTH = 1000
CHUNKINGS = {"whole": [1000], "one by one": [1] * 1000, "uneven": [1, 300, 7, 2, 690]}
RULES = {  # query heads, heads, K, V; channels of a decay; beta
    "linear": (4, 4, 8, 6, 0, False),
    "lightning": (4, 4, 8, 8, 1, False),
    "mamba 2": (1, 4, 16, 8, 1, False),
    "mamba": (1, 24, 8, 1, 8, False),
    "rg-lru": (1, 24, 1, 1, 1, False),
    "delta": (4, 4, 8, 8, 0, True),
    "gated delta": (2, 4, 8, 16, 1, True),
    "kimi delta": (4, 4, 8, 8, 8, True),
}
Arrays = dict[str, np.ndarray]


class Attend(nn.Module):
    """The operator, with whichever of decay and beta there are."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(self.names, inputs, strict=True))
        names = ("q", "k", "v", "decay", "beta", "state")
        return torch.ops.lcc.linear_attention(*(given.get(n) for n in names), 0.5)


class Convolve(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ops.lcc.causal_conv(x, self.weight, self.bias, state)


def numbers_of(rule: str, length: int = LENGTH) -> Arrays:
    """Inputs as models have them: short keys, decays of every strength, a state of any size."""
    groups, heads, keys, values, channels, has_beta = RULES[rule]
    draw = np.random.default_rng(0)
    made = {
        "q": draw.standard_normal((1, length, groups, keys)),
        "k": draw.standard_normal((1, length, groups, keys)),
        "v": draw.standard_normal((1, length, heads, values)),
        "state": draw.standard_normal((1, heads, keys, values)),
    }
    made["k"] /= np.linalg.norm(made["k"], axis=-1, keepdims=True)
    if channels:
        made["decay"] = -np.exp(draw.uniform(-9, 3, (1, length, heads, channels)))
    if has_beta:
        made["beta"] = draw.random((1, length, heads))
    return {name: each.astype(np.float32) for name, each in made.items()}


def loop(given: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """What the operator says, in float64 and token by token."""
    q, k, v, state = (given[n].astype(np.float64)[0] for n in ("q", "k", "v", "state"))
    group = np.arange(v.shape[1]) * k.shape[1] // v.shape[1]  # of each head
    decay = np.exp(given.get("decay", np.zeros((1, len(v), 1, 1))).astype(np.float64)[0])
    out = np.zeros_like(v)
    for token in range(len(v)):
        key, value = k[token, group][:, :, None], v[token][:, None]
        state *= decay[token][:, :, None]
        if "beta" in given:
            said = (key * state).sum(axis=1, keepdims=True)
            value = (value - said) * given["beta"][0, token][:, None, None]
        state += key * value
        out[token] = 0.5 * (q[token, group][:, :, None] * state).sum(axis=1)
    return out, state


def program_of(module: nn.Module, given: Arrays) -> Program:
    dim = torch.export.Dim("tokens", min=1, max=200_000)
    inputs = [
        Input(
            Port(name, Role.STATE if name == "state" else Role.HIDDEN),
            torch.from_numpy(each if name == "state" else each[:, :5].copy()),
            {} if name == "state" else {1: ("tokens", dim)},
        )
        for name, each in given.items()
    ]
    outputs = [Port("out", Role.HIDDEN), Port("state_out", Role.STATE)]
    return export(module, ("step",), inputs, outputs, {"state_out": "state"})


def reader(module: nn.Module, given: Arrays) -> Callable[[list[int]], tuple[np.ndarray, ...]]:
    """What reads the tokens in chunks, by one session, with the state where it lies."""
    content = ir.to_proto(to_onnx(program_of(module, given))).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    last = next(each for name, each in given.items() if name in ("v", "x"))

    def read(chunks: list[int]) -> tuple[np.ndarray, ...]:
        state, rows, first = given["state"].copy(), [], 0
        for size in chunks:
            out, binding = np.zeros((1, size, *last.shape[2:]), np.float32), session.io_binding()
            parts = {n: each[:, first : first + size].copy() for n, each in given.items()}
            for name, array in (parts | {"state": state}).items():
                binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            for name, array in (("out", out), ("state_out", state)):
                binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            session.run_with_iobinding(binding)
            rows.append(out[0])
            first += size
        return np.concatenate(rows), state[0]

    return read


def check(got: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...], share: float) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert np.isfinite(one).all()
        assert np.abs(one - other).max() <= share * np.abs(other).max()


@pytest.mark.parametrize("rule", RULES)
def test_linear_attention_in_chunks_of_any_size(rule: str) -> None:
    given = numbers_of(rule)
    wanted, read = loop(given), reader(Attend([*given]), given)
    for chunks in CHUNKINGS.values():
        check(read(chunks), wanted, 1e-5)


@pytest.mark.parametrize("rule", ["mamba 2", "gated delta"])
def test_a_state_of_a_hundred_thousand_tokens(rule: str) -> None:
    given = numbers_of(rule, 100_000)
    check(reader(Attend([*given]), given)([512] * 195 + [160]), loop(given), 1e-3)


@pytest.mark.parametrize(("width", "biased"), [(4, True), (3, False), (7, True), (2, False)])
def test_causal_conv_in_chunks_of_any_size(width: int, biased: bool) -> None:
    draw = np.random.default_rng(1)
    weight, bias = draw.standard_normal((24, width)), draw.standard_normal(24) * biased
    given: Arrays = {
        "x": draw.standard_normal((1, LENGTH, 24)).astype(np.float32),
        "state": draw.standard_normal((1, width - 1, 24)).astype(np.float32),
    }
    rows = np.concatenate((given["state"][0], given["x"][0]))
    every = [(rows[i : i + width] * weight.T).sum(0) + bias for i in range(LENGTH)]
    wanted = np.array(every), rows[LENGTH:]
    of_bias = torch.from_numpy(bias.astype(np.float32)) if biased else None
    module = Convolve(torch.from_numpy(weight.astype(np.float32)), of_bias)
    read = reader(module, given)
    for chunks in CHUNKINGS.values():
        check(read(chunks), wanted, 1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_the_operator_is_the_loop(rule: str) -> None:
    """The eager meaning, too, which the reference target runs."""
    given = numbers_of(rule, 40)
    tensors = [torch.from_numpy(each) for each in given.values()]
    got = Attend([*given])(*tensors)
    check(tuple(each[0].numpy() for each in got), loop(given), 1e-5)
