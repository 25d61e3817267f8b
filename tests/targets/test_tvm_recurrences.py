"""Recurrences of target tvm:cpu: kernels against the operators' eager loops, and in a program."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lcc.artifact.program_entry import program_entries
from lcc.ir.program import Input, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.runtime.engines.host_array import zeros
from lcc.runtime.engines.tvm_relax import TvmEngine
from lcc.targets.tvm_cpu import TvmCpu
from lcc.targets.tvm_cpu.causal_conv import causal_conv
from lcc.targets.tvm_cpu.linear_attention import linear_attention
from lcc.targets.tvm_cpu.linear_attention_parts import Recurrence
from lcc.targets.tvm_cpu.tir import TILES
from lcc.testing.listed import listed_files
from lcc.testing.tvm_kernels import BEST, PLAINEST, compiled, drawn
from lcc.testing.tvm_results import returned

TEXT = 300
CUTS = {"whole": [TEXT], "one by one": [1] * TEXT, "uneven": [1, 2, 131, 5, 1, 64, 3, 93]}
RULES = {
    "a head each": Recurrence(4, 4, 16, 64, 0.25),
    "queries for two heads": Recurrence(6, 3, 12, 40, 0.3),
    "sizes that no vector divides": Recurrence(3, 1, 5, 7, 0.3),
    "one key": Recurrence(2, 1, 1, 12, 1.0),
    "one value, as Mamba": Recurrence(70, 1, 16, 1, 1.0),
    "one value of a few keys": Recurrence(6, 3, 6, 1, 0.5),
    "single numbers, as RG-LRU": Recurrence(40, 40, 1, 1, 1.0),
    "single numbers in groups": Recurrence(24, 2, 1, 1, 0.5),
}
ARGUMENTS = list(itertools.product((None, "head", "channel"), (False, True)))
EVERY = ("queries for two heads", "one value, as Mamba", "single numbers, as RG-LRU")  # of kernels
KERNELS = [
    *((name, BEST, *each) for name in EVERY for each in ARGUMENTS),
    *((name, BEST, "head", True) for name in RULES if name not in EVERY),
    *((name, BEST, "channel", False) for name in RULES if name not in EVERY),
    *(("queries for two heads", PLAINEST, *each) for each in ARGUMENTS[::2]),
]


def in_steps(
    run: Callable[..., None], rows: list[Tensor], more: list[Tensor], state: Tensor, cuts: list[int]
) -> tuple[Tensor, Tensor]:
    """What a kernel gives for a text that comes in steps, and the state behind it.

    rows        [1, T, ..] each, of the text; the last one is like the output
    more        arguments that are the same in every step
    """
    state, parts, first = state.clone(), [], 0
    for count in cuts:
        given = [each[:, first : first + count] for each in rows]
        out = torch.full_like(given.pop(), torch.nan)
        run(*given, *more, state, out)
        parts.append(out)
        first += count
    return torch.cat(parts, dim=1), state


def assert_near(got: Tensor, wanted: Tensor) -> None:
    """Within 1e-5 of the largest number."""
    torch.testing.assert_close(got, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("channels", "size", "level"),
    [(160, 3, BEST), (20, 4, BEST), (7, 8, BEST), (256, 2, BEST), (40, 4, PLAINEST)],
)
def test_convolution_is_the_operator(channels: int, size: int, level: str, bias: bool) -> None:
    """Steps shorter than the state, too: what it held moves up."""
    run = compiled(causal_conv(channels, size, TILES[level], bias=bias), level)
    x, weight, state = drawn(1, TEXT, channels), drawn(channels, size), drawn(1, size - 1, channels)
    added = drawn(channels) if bias else None
    wanted, behind = torch.ops.lcc.causal_conv(x, weight, added, state)
    for cuts in CUTS.values():

        def step(part: Tensor, *others: Tensor) -> None:
            run(part, weight, *([] if added is None else [added]), *others)

        out, left = in_steps(step, [x, x], [], state, cuts)
        assert_near(out, wanted)
        assert torch.equal(left, behind)


def text_for(rule: Recurrence) -> tuple[list[Tensor | None], Tensor]:
    """q, k, v, decay, beta of a text, and a state before it; some decays leave nothing."""
    channels = rule.keys if rule.decay == "channel" else 1
    q, k = (drawn(1, TEXT, rule.groups, rule.keys, seed=seed) for seed in (1, 2))
    v = drawn(1, TEXT, rule.heads, rule.values, seed=3)
    decay = -drawn(1, TEXT, rule.heads, channels, seed=4).exp() * 0.1
    decay[:, 40:60:7], decay[:, 50, :1] = -50.0, -torch.inf
    beta = drawn(1, TEXT, rule.heads, seed=5).sigmoid()
    state = drawn(1, rule.heads, rule.keys, rule.values, seed=6)
    more = [decay if rule.decay else None, beta if rule.beta else None]
    return [q, functional.normalize(k, dim=-1), v, *more], state


@pytest.mark.parametrize(("name", "level", "decay", "beta"), KERNELS)
def test_linear_attention_is_the_operator(name: str, level: str, decay: Any, beta: bool) -> None:
    """The same for a text at once, one by one and in steps of any length."""
    rule = replace(RULES[name], decay=decay, beta=beta)
    run = compiled(linear_attention(rule, TILES[level]), level)
    given, state = text_for(rule)
    wanted, behind = torch.ops.lcc.linear_attention(*given, state, rule.scale)
    rows = [each for each in given if each is not None]
    for cuts in CUTS.values():
        out, left = in_steps(run, [*rows, wanted], [], state, cuts)
        assert_near(out, wanted)
        assert_near(left, behind)


def test_what_the_test_above_compares_differs_from_rule_to_rule() -> None:
    """Or a kernel that forgot a decay, a beta, a state or a scale would pass."""
    for rule in RULES.values():
        kinds = [replace(rule, decay=decay, beta=beta) for decay, beta in ARGUMENTS]
        if rule.keys == 1:
            kinds = [each for each in kinds if each.decay != "channel"]  # is that of a head
        results = []
        for each in kinds:
            given, state = text_for(each)
            results.append(torch.ops.lcc.linear_attention(*given, state, each.scale)[0])
        given, state = text_for(kinds[0])
        results.append(torch.ops.lcc.linear_attention(*given, state * 0, rule.scale)[0])
        results.append(torch.ops.lcc.linear_attention(*given, state, rule.scale * 1.1)[0])
        for i, one in enumerate(results):
            assert all((one - other).abs().max() > 0.01 for other in results[:i])


class Both(nn.Module):
    """A convolution whose result is a recurrence's query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(24, 4))

    def forward(self, x: Tensor, before: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mixed, before = torch.ops.lcc.causal_conv(x, self.weight, None, before)
        q, k, v = mixed.unflatten(-1, (3, 2, 4)).unbind(2)
        out, state = torch.ops.lcc.linear_attention(q, k, v, None, None, state, 0.5)
        return out, before, state


def test_states_of_a_program_are_updated_where_they_lie(tmp_path: Path) -> None:
    x, before, state = drawn(1, 9, 24), drawn(1, 3, 24), drawn(1, 2, 4, 4)
    length = {1: ("tokens", torch.export.Dim("tokens", min=1))}
    inputs = [
        Input(Port("x", Role.HIDDEN), x, length),
        Input(Port("state_0", Role.STATE, 0), before, {}),
        Input(Port("state_1", Role.STATE, 1), state, {}),
    ]
    outputs = [Port("out", Role.HIDDEN)]
    outputs += [Port(f"state_{i}_out", Role.STATE, i) for i in (0, 1)]
    updates = {"state_0_out": "state_0", "state_1_out": "state_1"}
    program = export(Both(), ("both",), inputs, outputs, updates)
    target = TvmCpu()
    entries = program_entries([program], target.build([program], tmp_path))
    manifest: Any = SimpleNamespace(
        target=target.name, cpu=target.cpu, programs=entries, files=listed_files(tmp_path)
    )
    runner = TvmEngine(tmp_path, manifest, threads=1).runner("both")
    with torch.no_grad():
        wanted = Both()(x, before, state)
    held = {"state_0": zeros([1, 3, 24], "float32"), "state_1": zeros([1, 2, 4, 4], "float32")}
    for name, value in zip(held, (before, state), strict=True):
        held[name][...] = value.numpy()
    runner.bind(held)
    parts, given_back = [], returned(runner)
    for first, last in ((0, 4), (4, 5), (5, 9)):
        out = np.zeros((1, last - first, 2, 4), np.float32)
        runner({"x": x[:, first:last].numpy(), "out": out})
        parts.append(out)
        results = [np.from_dlpack(each) for each in given_back[-1][1:]]
        assert [r.ctypes.data for r in results] == [h.ctypes.data for h in held.values()]
    for got, want in zip((np.concatenate(parts, 1), *held.values()), wanted, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-5)
