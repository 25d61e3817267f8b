"""Operators that TVM's own importer gets wrong, or does not know: what they give, in programs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcc.artifact.program_entry import program_entries
from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.runtime.engines.tvm_relax import TvmEngine
from lcc.targets.tvm_cpu import TvmCpu
from lcc.targets.tvm_cpu.build import _lowered, describe
from lcc.targets.tvm_cpu.importer import import_program
from lcc.targets.tvm_cpu.platforms import platform
from lcc.targets.tvm_cpu.tir import TILES
from lcc.testing.listed import listed_files
from lcc.testing.tvm_kernels import BEST


class Repeated(nn.Module):
    """Each number twice, as an interleaved rotation wants its angles (Command R, GLM 4)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=-1) + x.repeat_interleave(2, -2).sum()


class Parts(nn.Module):
    """Parts that are replaced, from the end too, and the last Q of Q rows."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.slice_scatter(x, x[:, :2] * 2, 1, 1, 6, 3)
        y = torch.slice_scatter(y, x[:, :1] * 3, 1, -1)
        y = torch.slice_scatter(y, y[:, :0], 1, 9, 20)  # nothing lies there
        y = torch.select_scatter(y, x[:, 0] * 5, 1, -3)
        return y[-x.shape[0] :] + torch.concatenate([(x + x)[1 - x.shape[0] :], x[:1] * 7])


class Numbers(nn.Module):
    """What xLSTM computes: large numbers do not overflow."""

    def forward(self, x: Tensor) -> Tensor:
        spread = x.var(-1, keepdim=True) + x.var(-1, unbiased=False, keepdim=True)
        return nn.functional.logsigmoid(x * 100) + spread


class Rows(nn.Module):
    """Rows by their numbers, as an eviction and a recall take them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(0, (x[:, 0] * 99).long().clamp(min=0) % x.shape[0])


class StrayRows(nn.Module):
    """The same of numbers that are no rows: not what lies beside the tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(0, torch.full_like(x[:, 0], 1 << 40).long())


class Likelihoods(nn.Module):
    """Of a token of each row, as scoring takes them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log_softmax(-1).gather(1, (x[:, :1] * 9).long())


class StrayPlaces(nn.Module):
    """Places behind the last one, which numbers are added to and taken from."""

    def forward(self, x: Tensor) -> Tensor:
        places = torch.full_like(x, 1 << 40).long()
        return x.scatter_add(1, places, x).gather(1, places)


def test_rows_that_are_none_are_not_read(tmp_path: Path) -> None:
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    np.testing.assert_equal(run(StrayRows(), x, x.shape, tmp_path), np.broadcast_to(x[-1], (5, 7)))


def test_places_that_are_none_are_neither_read_nor_written(tmp_path: Path) -> None:
    """An evict program that is told another number than the entries in use had such ones."""
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    wanted = np.broadcast_to((x[:, -1] + x.sum(1))[:, None], (5, 7))
    np.testing.assert_equal(run(StrayPlaces(), x, x.shape, tmp_path), wanted)


@pytest.mark.parametrize("module", [Repeated(), Parts(), Numbers(), Rows()])
def test_what_a_program_gives(module: nn.Module, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    wanted = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(module, x, wanted.shape, tmp_path), wanted, rtol=1e-5)


def test_likelihoods_of_all_tokens_are_never_there() -> None:
    """One subtraction, of what was picked: [rows, vocabulary] is as large as all logits."""
    import tvm

    program = program_of(Likelihoods())
    with tvm.target.Target(describe(BEST, platform("cpu"))):
        module = import_program(program, [], TILES[BEST], one_token=False)
        functions = _lowered(module, TILES[BEST].lanes).functions_items()
    names = [variable.name_hint for variable, _ in functions]
    assert "log_sum" in names
    assert sum("subtract" in name for name in names) == 1


def program_of(module: nn.Module) -> Program:
    """Of five rows."""
    rows = {0: ("rows", torch.export.Dim("rows", min=3))}
    inputs = [Input(Port("hidden", Role.HIDDEN), torch.zeros(4, 7), rows)]
    return export(module, ("repeat",), inputs, [Port("out", Role.HIDDEN)])


def run(module: nn.Module, x: np.ndarray, shape: tuple, tmp_path: Path) -> np.ndarray:
    """What a module's program gives for five rows."""
    program, target = program_of(module), TvmCpu()
    entries = program_entries([program], target.build([program], tmp_path))
    manifest: Any = SimpleNamespace(
        target=target.name, cpu=target.cpu, programs=entries, files=listed_files(tmp_path)
    )
    runner = TvmEngine(tmp_path, manifest, threads=1).runner("repeat")
    out = np.zeros(shape, np.float32)
    runner({"hidden": x, "out": out})
    return out
