"""`--target fastest`: what was measured decides, and is said."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lcc.artifact.manifest import read_manifest
from lcc.cli import app
from lcc.config import CompileConfig
from lcc.targets import fastest, missing
from lcc.testing.tiny import save_tiny

SMALL = (
    "--capacity=96 --budget=40 --chunk-size=16 --catalyst-size=8 --recent-size=4 --policy=knorm -q"
).split()


@pytest.mark.parametrize(
    ("level", "lacking", "precision", "name", "words"),
    [
        ("cooperlake", [], "int8", "tvm:cpu", "reads 1.7 and writes 1.9 times as fast"),
        ("cooperlake", ["tvm"], "int8", "onnxruntime:cpu", "because tvm is not installed"),
        ("x86-64", [], "int8", "onnxruntime:cpu", "not measured in int8 on a CPU of level x86-64"),
        ("x86-64-v3", [], "given", "onnxruntime:cpu", "not measured in given"),
    ],
)
def test_what_was_measured_decides(
    level: str,
    lacking: list[str],
    precision: str,
    name: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fastest, "best_level", lambda: level)
    monkeypatch.setattr(fastest, "missing", lambda _: lacking)
    found = fastest.fastest(precision)  # type: ignore[arg-type]
    assert found.name == name
    assert words in found.why


def test_the_artifact_is_for_that_target(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the default says what would be faster."""
    monkeypatch.setattr(fastest, "best_level", lambda: "x86-64")
    command = [
        "compile",
        str(tiny_folder),
        "-o",
        str(tmp_path / "m.lcc"),
        *SMALL,
        "--policy=knorm",
        "-q",
    ]
    run = CliRunner().invoke(app, [*command, "--target", "fastest"])
    assert run.exit_code == 0, run.output
    assert "onnxruntime:cpu: tvm:cpu was not measured in fp32" in run.output
    assert read_manifest(tmp_path / "m.lcc").target == "onnxruntime:cpu"
    assert "faster:" not in run.output
    monkeypatch.setattr(fastest, "best_level", lambda: "cooperlake")
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    assert "faster: --target fastest (tvm:cpu: reads 1.05 and writes 1.3 times" in run.output


def test_it_is_one_of_several_and_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "best_level", lambda: "x86-64")
    for target, also, wanted in (
        ("fastest", ("reference",), ["onnxruntime:cpu", "reference"]),
        ("reference", ("fastest",), ["reference", "onnxruntime:cpu"]),
        ("fastest", ("onnxruntime:cpu",), ["onnxruntime:cpu"]),
    ):
        config, chosen = fastest.resolved(CompileConfig(target=target, also=also))
        assert [config.target, *config.also] == wanted
        assert chosen is not None
    assert fastest.resolved(CompileConfig())[1] is None


@pytest.mark.skipif(bool(missing("tvm:cpu")), reason="tvm is not installed")
def test_what_the_fastest_refuses_is_built_by_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path / "experts", "mixtral")
    monkeypatch.setattr(fastest, "best_level", lambda: "cooperlake")
    command = ["compile", str(tmp_path / "experts"), "-o", str(tmp_path / "m.lcc"), *SMALL]
    targets = ["--target", "fastest", "--target", "onnxruntime:cpu"]  # which is named once then
    run = CliRunner().invoke(app, [*command, *targets, "--precision", "int8"])
    assert run.exit_code == 0, run.output
    assert "fp32 only; onnxruntime:cpu has int8 and int4" in run.output
    assert "so for onnxruntime:cpu" in run.output
    assert read_manifest(tmp_path / "m.lcc").target == "onnxruntime:cpu"
