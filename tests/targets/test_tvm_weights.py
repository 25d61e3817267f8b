"""The weights of TVM's targets are the same, loaded before or read in blocks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lcc.artifact.weights_index import StoredTensor
from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig, Precision
from lcc.ir import lazy_tensor
from lcc.ir.program import HEAD, Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.policies import make_policy
from lcc.passes.programs.base import run_program_passes
from lcc.passes.specialize import Subject, specialize
from lcc.sources.models import load_model
from lcc.targets import missing
from lcc.targets.tvm_cpu import TvmCpu
from lcc.targets.tvm_cuda import TvmCuda
from lcc.targets.tvm_cuda.importer import import_program
from lcc.testing.tiny import save_tiny

if missing("tvm:cpu"):
    pytest.skip("tvm is not installed", allow_module_level=True)

from lcc.targets.tvm_cpu.tir import TILES
from lcc.targets.tvm_cpu.weights import Layout, Rounding, Weight, WeightsFile, weights_of

TILES_HERE = TILES["x86-64-v3"]


def written(
    folder: Path, path: Path, cache: CacheConfig, *, lazy: bool, cuda: bool = False
) -> tuple[bytes, list[StoredTensor]]:
    loaded = load_model(folder, lazy=lazy)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"))
    subject = Subject(capture(loaded.module), "m", loaded.architecture, None, None, None)
    programs: list[Program] = specialize(subject, config, make_policy(config.policy)).programs
    target, file = TvmCuda() if cuda else TvmCpu(), WeightsFile(path)
    programs = run_program_passes(programs, target.passes())
    weights = weights_of(programs)
    if cuda:
        index = [file.add(each) for p in programs for each in import_program(p)[1]]
    else:
        index = [file.add_weight(w, TILES_HERE) for p in programs for w in weights[p.file_stem]]
    return path.read_bytes(), index


@pytest.mark.parametrize(
    ("architecture", "cuda"),
    [("llama", False), ("gpt2", False), ("mixtral", False), ("llama", True)],
)
def test_read_in_blocks_it_is_the_same(
    architecture: str,
    cuda: bool,
    tmp_path: Path,
    cache: CacheConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packed, the other way round, and experts; an embedding that is the head's, too, once."""
    save_tiny(tmp_path / "model", architecture)
    at_once = written(tmp_path / "model", tmp_path / "a", cache, lazy=False, cuda=cuda)
    monkeypatch.setattr(lazy_tensor, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr("lcc.ir.stand_ins.SMALL_BYTES", 1 << 10)
    in_blocks = written(tmp_path / "model", tmp_path / "b", cache, lazy=True, cuda=cuda)
    assert in_blocks == at_once


def counted(rows: int, columns: int) -> tuple[lazy_tensor.LazyTensor, Callable[[], int]]:
    numbers, most = torch.arange(rows * columns, dtype=torch.float32).view(rows, columns), [0]

    def read(start: int, stop: int) -> torch.Tensor:
        most[0] = max(most[0], stop - start)
        return numbers[start:stop]

    return lazy_tensor.LazyTensor((rows, columns), torch.float32, read, "w"), lambda: most[0]


def test_no_more_than_a_block_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a weight that other programs have, too, is read once; equal contents are there once."""
    monkeypatch.setattr(lazy_tensor, "BLOCK_BYTES", 10 * 50 * 4)
    tensor, most = counted(95, 50)
    file = WeightsFile(tmp_path / "w")
    stored = file.add_weight(Weight("w", tensor, Layout.PACKED), TILES_HERE)
    assert most() == 10
    size = (tmp_path / "w").stat().st_size
    array = np.fromfile(tmp_path / "w", np.float32, offset=stored.offset).reshape(stored.shape)
    whole = array.transpose(0, 2, 1).reshape(-1, 50)
    np.testing.assert_array_equal(whole[:95], tensor.whole().numpy())
    assert not whole[95:].any()
    again = file.add_weight(Weight("v", tensor.whole(), Layout.PACKED), TILES_HERE)
    assert (again, (tmp_path / "w").stat().st_size) == (stored, size)


class Tables(nn.Module):
    """An embedding, and layers with 64, 40 and 32 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(96, 64)
        self.layers = nn.ModuleList([nn.Linear(64, 40), nn.Linear(40, 32), nn.Linear(32, 64)])
        self.few = nn.Linear(64, 8)

    def forward(self, ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids) + hidden
        for layer in self.layers:
            x = layer(x)
        return x + self.few(x).sum()


class Logits(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden)


@pytest.mark.parametrize("tied", [False, True])
def test_how_each_weight_is_rounded(tied: bool) -> None:
    model, head = Tables(), nn.Linear(64, 96)
    if tied:
        head.weight = model.embedding.weight
    ids = Input(Port("ids", Role.TOKENS), torch.zeros(1, 3, dtype=torch.int64))
    hidden = Input(Port("hidden", Role.HIDDEN), torch.zeros(1, 3, 64))
    out = [Port("out", Role.HIDDEN)]
    programs = [
        export(model, ("step",), [ids, hidden], out),
        export(Logits(head), (HEAD,), [hidden], out),
    ]

    def rounded(precision: Precision) -> list:
        found = weights_of(programs, precision)
        step, head = ({w.tensor.shape: w for w in found[p.file_stem]} for p in programs)
        sizes = [(96, 64), (40, 64), (32, 40), (64, 32), (8, 64)]
        assert step[96, 64].layout == (None if precision == "fp32" and not tied else Layout.PACKED)
        return [*(step[torch.Size(each)].rounding for each in sizes), head[96, 64].rounding]

    rows, few, table = Rounding.ROWS, Rounding.BLOCKS_4, Rounding.BLOCKS_8
    assert rounded("fp32") == [None] * 6
    assert rounded("int8") == [rows, rows, rows, rows, None, rows]
    assert rounded("int4") == [table, few, rows, few, None, table]
