"""Weights that a program computes of weights alone; those of experts are in test_tvm_experts."""

import pytest
import torch
from torch import Tensor, nn

from lcc.ir.program import Input, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.targets.tvm_cpu import fold_weights
from lcc.targets.tvm_cpu.fold_weights import FoldWeights


class Decay(nn.Module):
    """The decays of a Mamba, a number in another dtype, and what reads a part of the former."""

    def __init__(self) -> None:
        super().__init__()
        self.a_log = nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.factor = nn.Buffer(torch.tensor(8.0, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        stays = torch.exp(self.a_log)
        factor = torch.ops.aten._to_copy.default(self.factor, dtype=torch.float32)
        return (x * -stays + x * stays) * factor + x * self.a_log


def test_small_ones_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))[:, None]
    rows = {0: ("rows", torch.export.Dim("rows"))}
    given = [Input(Port("x", Role.HIDDEN), x, rows)]
    with torch.no_grad():
        program = export(Decay(), ("decay",), given, [Port("out", Role.HIDDEN)])
    (folded,) = FoldWeights().rewrite(program) or []
    FoldWeights().ensures(folded)
    operators = [str(n.target) for n in folded.exported.graph.nodes if n.op == "call_function"]
    assert sorted(set(operators)) == ["aten.add.Tensor", "aten.mul.Tensor"]
    assert not any(value.dtype == torch.bfloat16 for value in folded.exported.constants.values())
    torch.testing.assert_close(folded.exported.module()(x[:3]), Decay()(x[:3]))
    monkeypatch.setattr(fold_weights, "SMALL", 5)
    (some,) = FoldWeights().rewrite(program) or []
    assert "aten.exp.default" in [str(node.target) for node in some.exported.graph.nodes]
