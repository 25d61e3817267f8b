"""Experts of target tvm:cpu: the kernel against the operator's eager meaning, and its weights."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lcc.errors import PassError
from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.experts import ACTIVATIONS
from lcc.targets.tvm_cpu.expert_weights import pack_down, pack_up
from lcc.targets.tvm_cpu.experts import Experts, experts
from lcc.targets.tvm_cpu.fold_weights import FoldWeights
from lcc.targets.tvm_cpu.importer import unknown_operators
from lcc.targets.tvm_cpu.tir import TILES
from lcc.targets.tvm_cpu.weights import Layout, weights_of
from lcc.testing.tvm_kernels import BEST, PLAINEST, compiled, drawn

FEW = Experts(5, 2, 70, 37, "silu")
LAYERS = {
    **{name: replace(FEW, activation=name) for name in ACTIVATIONS},
    "scaled, shifted, clamped": replace(FEW, alpha=1.702, beta=1.0, limit=0.6, up_bias=True),
    "biases": replace(FEW, activation="gelu", alpha=1.3, up_bias=True, down_bias=True),
    "one of many": Experts(64, 1, 16, 8, "relu", limit=0.5, down_bias=True),
    "most of few": Experts(4, 3, 64, 200, "silu"),
    "no gate": replace(FEW, activation="relu2", gated=False),
    "no gate, biases": Experts(5, 2, 64, 96, "silu", 1.2, up_bias=True, gated=False),
}


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("name", "level"),
    [*((name, BEST) for name in LAYERS), ("gelu", PLAINEST), ("biases", PLAINEST)],
)
def test_experts_are_the_operator(name: str, level: str, interleaved: bool) -> None:
    """What nobody chooses is NaN; one that a token names twice counts twice; shares of any sign."""
    layer, tiles = LAYERS[name], TILES[level]
    run = compiled(experts(layer, tiles), level)
    rows = layer.inner * (2 if layer.gated else 1)
    up = drawn(layer.count, rows, layer.width) * 0.2
    down = drawn(layer.count, layer.width, layer.inner) * 0.2
    up_bias = drawn(layer.count, rows) if layer.up_bias else None
    down_bias = drawn(layer.count, layer.width) if layer.down_bias else None
    gate = (layer.activation, layer.alpha, layer.beta, layer.limit, interleaved)
    for tokens in (1, 2, 23, 70):
        x, shares = drawn(tokens, layer.width), drawn(tokens, layer.chosen)
        chosen = torch.randint(
            layer.count - 1, (tokens, layer.chosen), generator=torch.Generator().manual_seed(tokens)
        )
        weights = (up, down, up_bias, down_bias)
        wanted = torch.ops.lcc.experts(x, chosen, shares, *weights, *gate)
        own = [weight if weight is None else weight.clone() for weight in weights]
        for weight in own:
            if weight is not None:
                weight[[e for e in range(layer.count) if e not in chosen]] = torch.nan
        first = partial(pack_up, interleaved=interleaved) if layer.gated else pack_down
        packed = [first(own[0].numpy(), tiles), pack_down(own[1].numpy(), tiles)]
        if up_bias is not None:
            packed.append(first(own[2][..., None].numpy(), tiles))
        more = [] if own[3] is None else [own[3]]
        out = torch.full_like(x, torch.nan)
        run(x, chosen, shares, *(torch.from_numpy(each) for each in packed), *more, out)
        torch.testing.assert_close(out, wanted, atol=2e-5, rtol=2e-6)


def test_what_is_no_expert_is_one() -> None:
    """Memory beside the weights is never read."""
    up, down = drawn(5, 74, 70) * 0.2, drawn(5, 70, 37) * 0.2
    packed = [
        pack_up(up.numpy(), TILES[BEST], interleaved=False),
        pack_down(down.numpy(), TILES[BEST]),
    ]
    x, shares, out = drawn(2, 70), drawn(2, 2), drawn(2, 70)
    chosen = torch.tensor([[-7, 10**12], [5, -1]])
    run = compiled(experts(FEW, TILES[BEST]))
    run(x, chosen, shares, *(torch.from_numpy(each) for each in packed), out)
    gate = ("silu", 1.0, 0.0, float("inf"), False)
    wanted = torch.ops.lcc.experts(x, chosen.clamp(0, 4), shares, up, down, None, None, *gate)
    torch.testing.assert_close(out, wanted, atol=2e-5, rtol=0)


EXPERTS, INNER, WIDTH = 4, 12, 16
GATE = ("silu", 1.0, 0.0, float("inf"), False)


class Layer(nn.Module):
    """Experts in parts: halves of the first product one by one, the second the other way round."""

    def __init__(self, computed: bool = False) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.gate, self.other = (
            nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH, generator=draw)) for _ in range(2)
        )
        self.down = nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH, generator=draw))
        self.computed = computed

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = x[:, :EXPERTS].topk(2, dim=-1)
        up, down = torch.cat((self.gate, self.other), dim=1), self.down.transpose(1, 2)
        if self.computed:
            up = up * x[0, 0]
        return torch.ops.lcc.experts(x, chosen, shares, up, down, None, None, *GATE)


def program_of(layer: nn.Module) -> Program:
    x = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(1))
    given = [Input(Port("x", Role.HIDDEN), x, {0: ("tokens", torch.export.Dim("tokens"))})]
    with torch.no_grad():
        return export(layer, ("experts",), given, [Port("out", Role.HIDDEN)])


def test_weights_in_parts_are_folded() -> None:
    """What is left are the weights that the operator takes, each stored once, in its layout."""
    program = program_of(Layer())
    (folded,) = FoldWeights().rewrite(program) or []
    FoldWeights().ensures(folded)
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))
    wanted, got = (each.exported.module()(x) for each in (program, folded))
    assert torch.equal(got, wanted)
    weights = weights_of([folded])["experts"]
    assert [each.layout for each in weights] == [Layout.DOWN, Layout.UP]
    assert [tuple(w.tensor.shape) for w in weights] == [(4, WIDTH, INNER), (4, 2 * INNER, WIDTH)]
    assert FoldWeights().rewrite(folded) is None, "nothing is left to fold"


def test_weights_that_come_with_the_text_are_refused() -> None:
    with pytest.raises(PassError, match="weights of experts that the model computes as it reads"):
        FoldWeights().rewrite(program_of(Layer(computed=True)))


class Both(nn.Module):
    """A weight that is also an ordinary number."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.ones(EXPERTS, 2 * INNER, WIDTH))
        self.down = nn.Parameter(torch.ones(EXPERTS, WIDTH, INNER))

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = x[:, :EXPERTS].topk(2, dim=-1)
        routed = torch.ops.lcc.experts(x, chosen, shares, self.up, self.down, None, None, *GATE)
        return routed + self.up.sum()


def test_weights_that_something_else_reads_are_refused() -> None:
    """They would not lie as the kernel reads them."""
    (reason,) = unknown_operators([program_of(Both())])
    assert reason == "experts: p_up is a factor and more"
