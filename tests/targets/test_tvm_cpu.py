"""Target tvm:cpu: what the artifact holds. Policies: tests/end_to_end/test_targets_agree.py."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lcc.runtime
from lcc.artifact.cpu import best_level
from lcc.artifact.manifest import read_manifest
from lcc.artifact.minisign import new_key
from lcc.artifact.signature import sign_artifact
from lcc.artifact.weights_index import weights_files
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, Precision
from lcc.errors import ConfigError, LccError, TrustError
from lcc.measure.verify import verify
from lcc.runtime.engines.host_array import zeros
from lcc.runtime.engines.tvm_relax import TvmEngine
from lcc.sources.models import LoadedModel
from lcc.targets.tvm_cpu.matmul import pack
from lcc.targets.tvm_cpu.tir import TILES
from lcc.testing.tiny import tiny_model
from lcc.testing.tvm_results import returned

WEIGHTS_FILE, _ = weights_files("tvm:cpu")
TARGET = "tvm:cpu"
SIZES = {"slots": 64}  # of arrays for a program, where they are not a few


@pytest.fixture(scope="module")
def artifact(compiled: Callable[..., Path]) -> Path:
    """Gemma 3: layers with a window of their own, norms of queries and keys. For two engines."""
    return compiled(TARGET, "onnxruntime:cpu", architecture="gemma3_text")


def test_weights_the_other_way_round(
    compiled: Callable[..., Path], loaded: Callable[..., LoadedModel]
) -> None:
    """GPT-2 has biases, too, and no rotation."""
    folder = compiled(TARGET, architecture="gpt2")
    report = verify(folder, loaded("gpt2"), prompt_tokens=90, new_tokens=20, allow_native=True)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert any("cycles" in row.what for row in report.rows)


@pytest.mark.parametrize("architecture", ["qwen3_5_text", "mamba"])
def test_states_of_layers(
    compiled: Callable[..., Path], loaded: Callable[..., LoadedModel], architecture: str
) -> None:
    """A matrix of each head, beside attention; thousands of small ones in place of it."""
    folder = compiled(TARGET, architecture=architecture)
    report = verify(
        folder, loaded(architecture), prompt_tokens=90, new_tokens=20, allow_native=True
    )
    assert report.ok, [row for row in report.rows if not row.ok]


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [("qwen2", "int8"), ("qwen3_5_text", "int8"), ("llama", "int4")],
)
def test_weights_in_few_bits(
    compiled: Callable[..., Path],
    loaded: Callable[..., LoadedModel],
    architecture: str,
    precision: str,
) -> None:
    """With biases; beside layers that carry a state. Of these the embedding is a large part."""
    folder = compiled(TARGET, architecture=architecture, precision=precision)
    report = verify(
        folder, loaded(architecture), prompt_tokens=90, new_tokens=20, allow_native=True
    )
    assert report.ok, [row for row in report.rows if not row.ok]
    other = compiled(TARGET, architecture=architecture) / WEIGHTS_FILE
    most = {"int8": 0.6, "int4": 0.5}[precision]
    assert (folder / WEIGHTS_FILE).stat().st_size < most * other.stat().st_size


WINDOW = "0: full; 1: sink_window(sink=4, window=16)"


@pytest.mark.parametrize("plan", ["dense", WINDOW])
def test_caches_in_halves_stay_where_they_are(
    compiled: Callable[..., Path], loaded: Callable[..., LoadedModel], plan: str
) -> None:
    folder = compiled(TARGET, plan=plan, kv_precision="fp16")
    model = loaded("llama", plan)
    report = verify(folder, model, prompt_tokens=90, new_tokens=20, allow_native=True)
    assert report.ok, [row for row in report.rows if not row.ok]
    runner = TvmEngine(folder, read_manifest(folder)).runner("prefill_chunk")
    entry, results = read_manifest(folder).programs["prefill_chunk"], returned(runner)
    arrays = {
        spec.name: zeros(
            [n if isinstance(n, int) else SIZES.get(n, 3) for n in spec.shape], spec.dtype
        )
        for spec in entry.inputs
    }
    runner(arrays)
    places = {spec.name: place for place, spec in enumerate(entry.outputs)}
    assert len(entry.updates) == 4
    for name, cache in entry.updates.items():
        array = np.from_dlpack(results[0][places[name]])
        assert array.dtype == np.float16
        assert array.ctypes.data == arrays[cache].ctypes.data


def test_halves_are_refused_where_no_cpu_knows_them(
    loaded: Callable[..., LoadedModel], cache: CacheConfig, tmp_path: Path
) -> None:
    config = CompileConfig(target=TARGET, cache=cache, kv_precision="fp16", cpu="x86-64")
    with pytest.raises(LccError, match="no CPU of level x86-64 knows float16; compile with --cpu"):
        compile_model(loaded("llama"), tmp_path / "m.lcc", config)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_experts_are_refused_in_few_bits(
    loaded: Callable[..., LoadedModel], cache: CacheConfig, tmp_path: Path, precision: Precision
) -> None:
    config = CompileConfig(target=TARGET, cache=cache, precision=precision)
    with pytest.raises(LccError, match="it builds mixtures of experts in fp32 only"):
        compile_model(loaded("mixtral"), tmp_path / "m.lcc", config)


def test_windows_and_two_rotations(artifact: Path, loaded: Callable[..., LoadedModel]) -> None:
    """And what was built for another engine beside it is the same model."""
    for target in (TARGET, "onnxruntime:cpu"):
        assert (
            lcc.runtime.load(artifact, target=target, allow_native=True).manifest.target == target
        )
        model = loaded("gemma3_text")
        report = verify(
            artifact, model, target=target, prompt_tokens=90, new_tokens=20, allow_native=True
        )
        assert report.ok, [row for row in report.rows if not row.ok]


def test_it_is_run_only_where_it_is_allowed_or_signed(artifact: Path, tmp_path: Path) -> None:
    assert lcc.runtime.load(artifact).manifest.target == "onnxruntime:cpu", "that is no code"
    with pytest.raises(TrustError, match=r"tvm:cpu runs machine code of the artifact \(programs_"):
        lcc.runtime.load(artifact, target=TARGET)
    folder, secret = Path(shutil.copytree(artifact, tmp_path / "m.lcc")), new_key()
    sign_artifact(folder, secret)
    session = lcc.runtime.open(folder, trusted_keys=[str(secret.public)])
    assert session.manifest.target == TARGET
    session.feed(list(range(5, 50)))
    assert session.next_logits().any()


def test_a_tied_embedding_is_stored_once_and_packed(artifact: Path) -> None:
    weight = tiny_model("gemma3_text").lm_head.weight.numpy()
    packed = pack(weight, TILES[best_level()]).tobytes()
    stored = (artifact / WEIGHTS_FILE).read_bytes()
    assert stored.count(packed) == 1
    assert stored.count(weight[:16].tobytes()) == 0


def test_the_cpu_is_written_down_and_can_be_chosen(
    artifact: Path, loaded: Callable[..., LoadedModel], cache: CacheConfig, tmp_path: Path
) -> None:
    assert read_manifest(artifact).cpu == best_level()
    for target, cpu, words in (
        (TARGET, "i386", "cpu is 'i386', wanted one of cooperlake, x86-64-v4"),
        ("onnxruntime:cpu", "x86-64-v3", "cpu is x86-64-v3, onnxruntime:cpu runs on any"),
    ):
        config = CompileConfig(target=target, cache=cache, cpu=cpu)
        with pytest.raises(ConfigError, match=words):
            compile_model(loaded("llama"), tmp_path / "m.lcc", config)
