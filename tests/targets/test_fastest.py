"""`--target fastest`: what was measured decides, and is said."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lcc.artifact.manifest import read_manifest
from lcc.cli import app
from lcc.targets import fastest

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
    assert "faster: --target tvm:cpu: reads 1.05 and writes 1.3 times" in run.output
