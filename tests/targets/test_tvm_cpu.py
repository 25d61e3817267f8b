"""Target tvm:cpu: what the artifact holds. Policies: tests/end_to_end/test_targets_agree.py."""

from pathlib import Path

import msgspec
import pytest

import lcc.runtime
from lcc.artifact.cpu import best_level
from lcc.artifact.weights_index import weights_files
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig
from lcc.errors import ConfigError
from lcc.measure.verify import verify
from lcc.sources.models import LoadedModel
from lcc.targets.tvm_cpu.matmul import pack
from lcc.targets.tvm_cpu.tir import TILES
from lcc.testing.tiny import tiny_model

WEIGHTS_FILE, _ = weights_files("tvm:cpu")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Gemma 3: layers with a window of their own, norms of queries and keys."""
    folder = tmp_path_factory.mktemp("gemma3") / "m.lcc"
    compile_model(loaded("gemma3_text", tiny_folder), folder, CONFIG)
    return folder


CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
CONFIG = CompileConfig(target="tvm:cpu", cache=CACHE)


def loaded(architecture: str, tiny_folder: Path) -> LoadedModel:
    files = {n: (tiny_folder / n).read_bytes() for n in ("tokenizer.json", "tokenizer_config.json")}
    return LoadedModel(tiny_model(architecture), architecture, architecture, 512, files)


def test_weights_the_other_way_round(tiny_folder: Path, tmp_path: Path) -> None:
    """GPT-2 has biases, too, and no rotation."""
    model = loaded("gpt2", tiny_folder)
    compile_model(model, tmp_path / "m.lcc", CONFIG)
    report = verify(tmp_path / "m.lcc", model, prompt_tokens=90, new_tokens=20)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert any("cycles" in row.what for row in report.rows)


def test_windows_and_two_rotations(artifact: Path, tiny_folder: Path) -> None:
    model = loaded("gemma3_text", tiny_folder)
    report = verify(artifact, model, prompt_tokens=90, new_tokens=20)
    assert report.ok, [row for row in report.rows if not row.ok]


def test_a_tied_embedding_is_stored_once_and_packed(artifact: Path) -> None:
    weight = tiny_model("gemma3_text").lm_head.weight.numpy()
    packed = pack(weight, TILES[best_level()]).tobytes()
    stored = (artifact / WEIGHTS_FILE).read_bytes()
    assert stored.count(packed) == 1
    assert stored.count(weight[:16].tobytes()) == 0


def test_the_cpu_is_written_down_and_can_be_chosen(artifact: Path, tiny_folder: Path) -> None:
    assert lcc.runtime.read_manifest(artifact).cpu == best_level()
    model = loaded("llama", tiny_folder)
    with pytest.raises(ConfigError, match="cpu is 'i386', wanted one of x86-64-v4, x86-64-v3"):
        compile_model(model, artifact.parent / "x.lcc", msgspec.structs.replace(CONFIG, cpu="i386"))
    other = CompileConfig(cpu="x86-64-v3")
    with pytest.raises(ConfigError, match="cpu is x86-64-v3, onnxruntime:cpu runs on any"):
        compile_model(model, artifact.parent / "x.lcc", other)
