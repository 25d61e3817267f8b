"""Programs written as ONNX by tracing a few nodes are those written by tracing the whole graph."""

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
from lcc.passes.specialize import Specialized
from lcc.targets import onnx_exporter
from lcc.targets.onnx_operators import lowerings
from lcc.targets.onnx_runtime import to_onnx

GENERATOR = np.random.default_rng(0)


def run(model: ir.Model, program: Program, inputs: list[np.ndarray]) -> list[np.ndarray]:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(program.input_names, inputs, strict=True)))


def example(tensor: Tensor) -> np.ndarray:
    """Numbers of a floating-point input are drawn anew; counts and positions are kept."""
    if not tensor.is_floating_point():
        return tensor.numpy()
    return GENERATOR.standard_normal(tensor.shape).astype(tensor.numpy().dtype)


@pytest.mark.parametrize("kinds", ["dense", "hybrid"])
def test_every_program_gives_what_it_gives_traced_as_a_whole(
    kinds: str,
    hybrid: str,
    specialized: Callable[..., Specialized],
    convert: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the hybrid a query is rotated twice by one kind of node, and both are needed."""
    if kinds == "dense":
        programs = specialized("llama", "snapkv").programs
    else:
        programs = specialized("llama", "snapkv", plan=hybrid).programs[:1]
    of_nodes = [convert(program) for program in programs]
    monkeypatch.setattr(onnx_exporter, "_needs_whole_graph", lambda _: True)
    for program, model in zip(programs, of_nodes, strict=True):
        inputs = [example(each) for each in program.exported.example_inputs[0]]
        expected = run(convert(program), program, inputs)
        for got, wanted in zip(run(model, program, inputs), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6, err_msg=program.file_stem)


class Mixed(nn.Module):
    """Of dtypes that must be cast, of operators that ONNX has not, and of results used twice."""

    def forward(self, x: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        near = (x > 0) & (n < 3)
        y = 1 - torch.where(near, x, n)
        return y, n / 2 + near, y.to(torch.float32)


def one_program(module: nn.Module, *values: Tensor, outputs: int) -> Program:
    inputs = [
        Input(Port(f"in_{i}", Role.TOKENS), value, {0: ("size", torch.export.Dim.DYNAMIC)})
        for i, value in enumerate(values)
    ]
    ports = [Port(f"out_{i}", Role.LOGITS) for i in range(outputs)]
    return export(module, ("mixed",), inputs, ports)


def test_dtypes_are_promoted_as_pytorch_promotes_them() -> None:
    x, n = torch.randn(5), torch.arange(5)
    program = one_program(Mixed(), x, n, outputs=3)
    got = run(to_onnx(program), program, [x.numpy(), n.numpy()])
    for each, wanted in zip(got, Mixed()(x, n), strict=True):
        assert each.dtype == wanted.numpy().dtype
        np.testing.assert_allclose(each, wanted.numpy(), rtol=1e-6)


def test_a_kind_of_node_is_traced_once(
    specialized: Callable[..., Specialized], convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers, two rotations and one attention each: three kinds, not six traces."""
    step, traced = specialized("llama", "consensus").programs[0], list[str]()
    decomposed = onnx_exporter._Call.decomposed

    def counted(call: onnx_exporter._Call, table: dict) -> object:
        traced.append(str(call.target))
        return decomposed(call, table)

    monkeypatch.setattr(onnx_exporter._Call, "decomposed", counted)
    convert(step)
    ours = [str(operator) for operator in lowerings()]
    nodes = [str(n.target) for n in step.exported.graph.nodes if str(n.target) in ours]
    assert sorted(t for t in traced if t in ours) == [
        "lcc.cached_attention.default",
        "lcc.rotate.default",
        "lcc.rotate.default",
    ]
    assert len(nodes) == 6
