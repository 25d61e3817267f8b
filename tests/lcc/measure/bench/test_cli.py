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

from lcc.cli import app, asking
from lcc.errors import LccError
from lcc.measure.bench import line_up
from lcc.measure.bench.engines import PEERS
from lcc.measure.bench.summary import METRICS


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
    assert "lcc.measure.bench.rounds" in loaded
    assert {"torch", "transformers", "onnxruntime", "onnx", "tvm_ffi"} & loaded == set()
    rows = list(csv.DictReader((out / "bench.csv").open()))
    first, second = "tiny.lcc fp32 budget 64", "tiny.lcc fp32 budget 48:96"
    assert [(row["engine"], row["tokens"]) for row in rows] == [
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
    assert list(meta["asked"]["engines"]) == [first, second]
    assert meta["asked"]["engines"][first].keys() == {"lcc", "onnxruntime", "artifact"}
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "bench.svg").read_bytes()[:500]
    table = done.stdout.splitlines()
    assert table[0] == "32 tokens read, 4 written; rounds: 1"
    assert table[2].startswith(f"{first} ")
    assert table[-1] == f"{out}: bench.json, bench.csv, run_meta.json, bench.png, bench.svg"


def test_missing_peers_are_named_and_skipped(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_up.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("lcc.measure.bench.rounds.ask", lambda page, **_: {"result": {"cycles": 7}})
    flags = ("-o", tmp_path, "--lengths", "8", "--rounds", 1, "--no-plot")
    result = bench(tiny_artifact, *flags, "--against", "llama-cpp", "--model", "x")
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
    monkeypatch.setattr("lcc.measure.bench.rounds.ask", lambda page, **_: {"result": {"cycles": 7}})
    for length, told in ((448, False), (449, True)):
        flags = ("-o", tmp_path / str(length), "--lengths", length, "--rounds", 1, "--no-plot")
        result = bench(tiny_artifact, *flags, "--against", "transformers", "--model", "x")
        assert result.exit_code == 0, (result.output, result.exception)
        assert ("The model was trained on 512 tokens: " in result.stdout) is told


def test_precisions_and_budgets_of_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(page: dict, **_: object) -> dict:
        asked.append((page["kind"], page["precision"]))
        assert page["model"] == "model"
        return {"source": "x"}

    monkeypatch.setattr(line_up.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(line_up, "ask", ask)
    found, skipped = line_up.peers(
        list(PEERS),
        "model",
        ["fp32", "int4"],
        [64, 32],
    )
    assert asked == []
    found, failed = line_up.prepare(found, "model", tmp_path, lambda step, done: None)
    assert failed == {}
    assert {each.source for each in found} == {"x"}
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
    assert len(asked) == len(set(asked)) == 7
    for peer in PEERS.values():
        module = importlib.import_module(f"lcc.measure.bench.engines.{peer.kind}")
        assert callable(module.prepare)
        assert callable(module.load)


def peer_results(page: dict, **_: object) -> dict:
    return {"source": page["model"]} if page["do"] == "prepare" else {"result": {"cycles": 7}}


def test_another_model_is_refused_before_its_weights_are_prepared(
    tiny_artifact: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []

    def ask(page: dict, **_: object) -> dict:
        prepared.append(page["model"])
        return peer_results(page)

    monkeypatch.setattr(line_up, "ask", ask)
    monkeypatch.setattr("lcc.measure.bench.rounds.ask", peer_results)
    out = tmp_path / "out"
    flags = (tiny_artifact, "-o", out, "--lengths", 8, "--rounds", 1, "--no-plot")
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    assert bench(*flags).exit_code == 0  # the others are added afterwards
    result = bench(*flags, "--against", "transformers", "--model", model)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "transformers fp32" in (out / "bench.csv").read_text()
    assert prepared == [str(model)]
    words = f"model: model was {model}, is {tiny_folder}"
    refused(*flags, "--against", "transformers", "--model", tiny_folder, words=words)
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    refused(*flags, "--against", "transformers", "--model", model, words="model: files was")
    assert prepared == [str(model)]
    other = tmp_path / "other.lcc"
    shutil.copytree(tiny_artifact, other)
    words = "compared_with was tiny.lcc fp32, is other.lcc fp32"
    refused(other, *flags, "--against", "transformers", "--model", model, words=words)


def test_weights_that_cannot_be_prepared_are_told_and_noted(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(page: dict, **_: object) -> dict:
        raise LccError("no disk")

    monkeypatch.setattr(line_up, "ask", ask)
    monkeypatch.setattr("lcc.measure.bench.rounds.ask", peer_results)
    flags = ("-o", tmp_path / "out", "--lengths", 8, "--rounds", 1, "--no-plot")
    for _ in range(2):  # the second time nothing is measured
        result = bench(tiny_artifact, *flags, "--against", "transformers", "--model", "x")
        assert result.exit_code == 0, (result.output, result.exception)
        assert "transformers fp32 is left out: no disk" in result.stderr
        meta = json.loads((tmp_path / "out" / "run_meta.json").read_text())
        assert meta["skipped"] == {"transformers fp32": "no disk"}


def test_an_artifact_without_numbers_is_exit_code_1(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing: set[tuple[str, int | None]] = set()

    def ask(page: dict, **_: object) -> dict:
        if (page["source"], page["options"].get("budget")) in failing:
            raise LccError("no memory")
        return {"result": numbers}

    numbers = {metric: 1.0 for metric in METRICS}
    monkeypatch.setattr("lcc.measure.bench.rounds.ask", ask)
    other = tmp_path / "other.lcc"
    shutil.copytree(tiny_artifact, other)

    def go(out: str, *flags: object) -> Result:
        flags = ("-o", tmp_path / out, "--lengths", 8, "--rounds", 1, *flags)
        return bench(tiny_artifact, other, *flags)

    assert go("all").exit_code == 0
    failing |= {(str(other), 32)}
    assert go("one", "--budgets", "64,32").exit_code == 0  # some are there
    failing |= {(str(other), 64)}
    result = go("none", "--budgets", "64,32")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("run_meta.json, bench.png, bench.svg")
    failing |= {(str(tiny_artifact), None), (str(other), None)}
    result = go("nothing")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("run_meta.json")  # nothing was drawn
    assert not (tmp_path / "nothing" / "bench.png").exists()


def test_artifacts_are_told_apart(tiny_artifact: Path, tmp_path: Path) -> None:
    other = tmp_path / tiny_artifact.name
    shutil.copytree(tiny_artifact, other)
    labels = [each.label for each in line_up.artifacts([tiny_artifact, other], [])]
    assert labels == [f"{tiny_artifact} fp32", f"{other} fp32"]


def test_mistakes(tiny_artifact: Path, tmp_path: Path) -> None:
    def tiny(*flags: object, words: str) -> None:
        refused(tiny_artifact, "-o", tmp_path / "out", *flags, words=words)
        assert not (tmp_path / "out" / "run_meta.json").exists()

    assert asking.numbers("8000,1k,1K,1m", "--lengths") == [8000, 1024, 1024**2]
    tiny("--lengths", "4kb", words="--lengths: '4kb' is no number of tokens")
    tiny("--lengths", ",", words="--lengths is ',', wanted names")
    tiny("--budgets", "", words="--budgets is '', wanted names")
    tiny("--against", ",", words="--against is ',', wanted names")
    tiny("--peer-precision", "", words="--peer-precision is '', wanted names")
    tiny("--budgets", "64,65", words=f"{tiny_artifact}: budget is 65, the artifact was")
    tiny("--budgets", "32:256", words="capacity is 256, the artifact was compiled for 128")
    tiny("--budgets", "64:64", words=f"{tiny_artifact}: budget (64) must be smaller than")
    tiny("--budgets", "32:0", words="--budgets: '0' is no number of tokens")
    tiny("--budgets", "1:2:3", words="--budgets 1:2:3: wanted entries or entries:slots, as 512")
    tiny("--against", "transformers", "--model", "./x", words="no such file or folder")
    tiny("--budgets", "a", words="--budgets: 'a' is no number of tokens")
    tiny("--against", "vllm", words="--against vllm: wanted some of openvino-genai, ")
    tiny("--against", "llama-cpp", words="--against needs a --model")
    tiny(
        *("--against", "kvpress", "--model", "x", "--peer-precision", "int8"),
        words="--peer-precision int8: wanted fp32, int4, or both",
    )
    refused(tiny_artifact, tiny_artifact, "-o", tmp_path, words="an artifact is named twice")
    refused(tmp_path, "-o", tmp_path / "out", words="is not an artifact")
