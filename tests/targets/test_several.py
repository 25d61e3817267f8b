"""One artifact for several targets: what can be shared is, and the runtime takes what runs here."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lcc.runtime
from lcc.artifact.manifest import cache_dtype, read_manifest, targets_of
from lcc.cli import app
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ArtifactError, ConfigError, TargetError

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
TEXT = np.random.default_rng(5).integers(5, 250, 250).tolist()
SIZES = "--capacity 96 --budget 40 --chunk-size 16 --catalyst-size 8 --recent-size 4".split()


@pytest.fixture(scope="module")
def both(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For an accelerator first, which is not here."""
    out = tmp_path_factory.mktemp("several") / "both.lcc"
    targets = ["--target", "onnxruntime:nnapi", "--target", "onnxruntime:cpu"]
    command = ["compile", str(tiny_folder), "-o", str(out), *targets, *SIZES, "--policy", "snapkv"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "for onnxruntime:nnapi, onnxruntime:cpu" in result.output
    return out


def test_what_is_the_same_is_there_once(both: Path, tiny_folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.lcc"
    config = CompileConfig(cache=CACHE, policy=PolicyConfig(name="snapkv"))
    compile_model(tiny_folder, alone, config)
    one, two = ({p.name: p.stat().st_size for p in folder.iterdir()} for folder in (alone, both))
    assert set(two) - set(one) == {"prefill_chunk.onnx", "decode.onnx"}
    assert two["weights.bin"] < 1.1 * one["weights.bin"]
    assert (both / "step.onnx").read_bytes() != (both / "decode.onnx").read_bytes()


def test_the_first_that_runs_here_is_taken(both: Path, tmp_path: Path) -> None:
    assert targets_of(read_manifest(both)) == ["onnxruntime:nnapi", "onnxruntime:cpu"]
    session = lcc.runtime.open(both)
    assert session.manifest.target == "onnxruntime:cpu"
    session.feed(TEXT, prefix=False)
    session.save(tmp_path / "s")
    other = lcc.runtime.open(both, target="onnxruntime:nnapi", device="cpu")
    assert other.manifest.target == "onnxruntime:nnapi"
    other.load(tmp_path / "s")  # what one target distilled, the other goes on from
    written = list(session.generate_ids(max_new_tokens=20, eos=[]))
    assert written == list(other.generate_ids(max_new_tokens=20, eos=[]))
    with pytest.raises(
        TargetError, match="target is onnxruntime:nnapi, this ONNX Runtime has only"
    ):
        lcc.runtime.open(both, target="onnxruntime:nnapi")
    with pytest.raises(ArtifactError, match=r"not compiled for reference; wanted one of .*nnapi, "):
        lcc.runtime.open(both, target="reference")


def test_the_commands_know_them(both: Path, tmp_path: Path, tiny_folder: Path) -> None:
    def lcc_command(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    text = lcc_command("inspect", both)
    assert "onnxruntime:nnapi (run on a CPU, never on a device), onnxruntime:cpu" in text
    assert "Programs for onnxruntime:nnapi\n  compact" not in text
    assert text.index("Programs for onnxruntime:nnapi") < text.index("Programs for onnxruntime:cpu")
    (tmp_path / "t").write_text("some words to read. " * 30)
    command = ["run", both, "--file", tmp_path / "t", "--prompt", "x", "--raw", "-q"]
    command += ["--max-new-tokens", "5", "--temperature", "0"]
    assert lcc_command(*command) == lcc_command(
        *command, "--target", "onnxruntime:nnapi", "--device", "cpu"
    )
    for name, *more in (
        ["run", "-p", "x"],
        ["chat"],
        ["eval", "--tasks", "passkey", "--lengths", "300", "-o", tmp_path / "out"],
    ):
        flags = [
            *map(str, more),
            "--target",
            "onnxruntime:nnapi",
        ]  # not the one that would run here
        result = CliRunner().invoke(app, [name, str(both), *flags])
        assert result.exit_code == 2, name
        assert "target is onnxruntime:nnapi, this ONNX Runtime has only" in result.output, name
    verified = ["verify", both, "--model", tiny_folder, "--target", "onnxruntime:nnapi"]
    assert "the same" in lcc_command(*verified, "--device", "cpu")


def test_a_cache_in_float16_goes_on_in_float32(tiny_folder: Path, tmp_path: Path) -> None:
    """A target for GPUs keeps its cache in float16; what it saved, a CPU goes on from."""
    config = CompileConfig(
        target="onnxruntime:cuda",
        also=("onnxruntime:cpu",),
        cache=CACHE,
        policy=PolicyConfig(name="keydiff"),
    )
    manifest = compile_model(tiny_folder, tmp_path / "m.lcc", config)
    assert (cache_dtype(manifest), manifest.also["onnxruntime:cpu"].cache_dtype) == (
        "float16",
        "float32",
    )
    gpu = lcc.runtime.open(tmp_path / "m.lcc", target="onnxruntime:cuda", device="cpu")
    cpu = lcc.runtime.open(tmp_path / "m.lcc", target="onnxruntime:cpu")
    assert (cache_dtype(gpu.manifest), cache_dtype(cpu.manifest)) == ("float16", "float32")
    gpu.feed(TEXT, prefix=False)
    assert len(gpu.cycles) >= 2
    gpu.save(tmp_path / "s")
    cpu.load(tmp_path / "s")
    np.testing.assert_array_equal(gpu.kept_tokens(1), cpu.kept_tokens(1))
    np.testing.assert_allclose(gpu.next_logits(), cpu.next_logits(), atol=5e-2)


def test_a_target_is_named_once(tiny_folder: Path, tmp_path: Path) -> None:
    config = CompileConfig(target="reference", also=("reference",))
    with pytest.raises(ConfigError, match="target reference is named twice"):
        compile_model(tiny_folder, tmp_path / "m", config)
    assert not (tmp_path / "m").exists()
