"""Compiling reads the weights one by one, and none before it is decided that the model fits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError, ModelError
from lcc.ir.stand_ins import SMALL_BYTES
from lcc.ir.weight_reads import reads_told
from lcc.testing.tiny import save_tiny

CACHE = CacheConfig(capacity=64, budget=32, chunk_size=16, catalyst_size=0, recent_size=4)
CONFIG = {"cache": CACHE, "policy": PolicyConfig(name="knorm")}
WIDE = {"intermediate_size": 1024}  # so that the weights of an MLP are not small


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    save_tiny(folder, **WIDE)
    return folder


def test_no_large_weight_is_read_to_say_that_nothing_fits(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LCC_CHECK", "0")  # it runs the model before and after each pass
    read = list[int]()
    with reads_told(read.append), pytest.raises(ConfigError, match="memory"):
        compile_model(wide, tmp_path / "m.lcc", CompileConfig(**CONFIG, memory_bytes=1 << 20))
    assert read
    assert max(read) < SMALL_BYTES


def test_a_weight_that_is_no_number_is_named_and_nothing_is_written(
    wide: Path, tmp_path: Path
) -> None:
    folder, name = tmp_path / "model", "model.layers.1.mlp.down_proj.weight"
    save_tiny(folder, **WIDE)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][3, 5] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name} holds numbers .*nan at \[3, 5\], 1 in"):
        compile_model(folder, tmp_path / "m.lcc", CompileConfig(**CONFIG))
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_progress_goes_by_the_bytes_that_were_read(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcc.compile.KEPT_BYTES", 0)  # as little as of a large model
    told = list[tuple[str, float]]()
    config = CompileConfig(**CONFIG, precision="int8")
    compile_model(wide, tmp_path / "m.lcc", config, progress=lambda *step: told.append(step))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    ends = {"check the weights": 0.47, "build for onnxruntime:cpu": 0.9}
    for step in (*ends, "read it in chunks", "record a golden"):
        done = [share for what, share in told if what.startswith(f"{step}, ")]
        assert len(set(done)) > 6  # six large weights
        assert done[-1] == pytest.approx(ends.get(step, done[-1]))
    assert any(what.startswith("record a golden, 0.0 GB read") for what, _ in told)
