"""`lcc bench` on a tiny artifact."""

import csv
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lcc.bench import line_up
from lcc.bench.contestants import PEERS
from lcc.cli import app
from lcc.cli.bench import parse_lengths


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *[str(each) for each in arguments]])


def refused(*arguments: object, words: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith("lcc: error: ")
    assert words in line


def test_bench(tiny_artifact: Path, tmp_path: Path) -> None:
    """In a process of its own, to see what the parent loads: no engine."""
    out = tmp_path / "out"
    command = [sys.executable, "-X", "importtime", "-m", "lcc", "bench", str(tiny_artifact)]
    command += ["-o", str(out), "--lengths", "32,200", "--new-tokens", "4", "--rounds", "1"]
    command += ["--budgets", "64,48:96", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "lcc.bench.rounds" in loaded
    assert {"torch", "transformers", "onnxruntime", "onnx", "tvm_ffi"} & loaded == set()
    rows = list(csv.DictReader((out / "bench.csv").open()))
    first, second = "tiny.lcc fp32 budget 64", "tiny.lcc fp32 budget 48:96"
    assert [(row["contestant"], row["tokens"]) for row in rows] == [
        (first, "32"),
        (second, "32"),
        (first, "200"),
        (second, "200"),
    ]
    assert all(float(row["decode_tokens_per_second"]) > 0 for row in rows)
    assert [int(row["cycles"]) > 0 for row in rows] == [False, False, True, True]
    assert int(rows[3]["kv_bytes"]) < int(rows[2]["kv_bytes"])
    assert rows[0]["first_ids"] == rows[1]["first_ids"]
    cells = json.loads((out / "bench.json").read_text())["cells"]
    assert [cell["same_ids"] for cell in cells[:2]] == [4, 4]
    meta = json.loads((out / "run_meta.json").read_text())
    assert meta["command"][-2:] == ["--threads", "1"]
    assert meta["machine"]["cores"] > 0
    assert meta["asked"]["contestants"] == [first, second]
    assert meta["asked"]["versions"][first].keys() == {"lcc", "onnxruntime", "artifact"}
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "bench.svg").read_bytes()[:500]
    table = done.stdout.splitlines()
    assert table[0] == "32 tokens read, 4 written; rounds: 1"
    assert table[2].startswith(f"{first} ")
    assert table[-1] == f"{out}: bench.json, bench.csv, run_meta.json, bench.png"


def test_missing_peers_are_named_and_skipped(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_up.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("lcc.bench.rounds.ask", lambda page, **_: {"result": {"cycles": 7}})
    flags = ("-o", tmp_path, "--lengths", "8", "--rounds", 1, "--no-plot")
    result = bench(tiny_artifact, *flags, "--against", "llama-cpp", "--model", "smollm2")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "llama-cpp is left out: not installed; do: pip install llama-cpp-python" in result.stderr
    meta = json.loads((tmp_path / "run_meta.json").read_text())
    assert meta["skipped"].keys() == {"llama-cpp"}
    assert not (tmp_path / "bench.png").exists()
    assert "The model was trained on" not in result.stdout


def test_lengths_beyond_the_window_are_remarked(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_up, "ask", lambda page, **_: {"source": "x"})
    monkeypatch.setattr("lcc.bench.rounds.ask", lambda page, **_: {"result": {"cycles": 7}})
    for length, told in ((448, False), (449, True)):
        flags = ("-o", tmp_path / str(length), "--lengths", length, "--rounds", 1, "--no-plot")
        result = bench(tiny_artifact, *flags, "--against", "transformers", "--model", "x")
        assert result.exit_code == 0, (result.output, result.exception)
        assert ("The model was trained on 512 tokens: " in result.stdout) is told


def test_precisions_and_budgets_of_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(page: dict, **_: object) -> dict:
        asked.append((page["kind"], page["precision"]))
        return {"source": "x"}

    monkeypatch.setattr(line_up.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(line_up, "ask", ask)
    found, skipped = line_up.peers(
        list(PEERS),
        "model",
        ["fp32", "int4"],
        [64, 32],
        folder=tmp_path,
        progress=lambda step, done: None,
    )
    assert [each.label for each in found] == [
        "openvino-genai int4",
        "onnxruntime-genai fp32",
        "onnxruntime-genai int4",
        "llama-cpp fp32",
        "llama-cpp int4",
        "transformers fp32",
        "kvpress fp32 budget 64",
        "kvpress fp32 budget 32",
    ]
    assert skipped.keys() == {"openvino-genai fp32", "transformers int4", "kvpress int4"}
    assert len(asked) == 7
    for peer in PEERS.values():
        module = importlib.import_module(f"lcc.bench.contestants.{peer.kind}")
        assert callable(module.prepare)
        assert callable(module.load)


def test_artifacts_are_told_apart(tiny_artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / tiny_artifact.name
    shutil.copytree(tiny_artifact, other)
    labels = [each.label for each in line_up.artifacts([tiny_artifact, other], [])]
    assert labels == [f"{tiny_artifact} fp32", f"{other} fp32"]


def test_mistakes(tiny_artifact: Path, tmp_path: Path) -> None:
    def tiny(*flags: object, words: str) -> None:
        refused(tiny_artifact, "-o", tmp_path / "out", *flags, words=words)
        assert not (tmp_path / "out" / "run_meta.json").exists()

    assert parse_lengths("8000,1k,1K,1m") == [1024, 8000, 1024**2]
    tiny("--lengths", "4kb", words="--lengths 4kb: wanted numbers of tokens")
    tiny("--lengths", ",", words="--lengths names none")
    tiny("--budgets", "a", words="--budgets a: wanted entries or entries:slots")
    tiny("--against", "vllm", words="--against vllm: wanted some of openvino-genai, ")
    tiny("--against", "llama-cpp", words="--against needs a --model")
    tiny(
        *("--against", "kvpress", "--model", "x", "--peer-precision", "int8"),
        words="--peer-precision int8: wanted fp32, int4, or both",
    )
    refused(tiny_artifact, tiny_artifact, "-o", tmp_path, words="an artifact is named twice")
    refused(tmp_path, "-o", tmp_path / "out", words="is not an artifact")
