"""docs/measure/on_a_gpu.py, as far as a machine without a GPU goes."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.targets import missing, tvm_cuda
from lcc.testing.tiny import save_tiny

MEASURE = Path(__file__).parents[2] / "docs" / "measure"
PARTS = ["onnxruntime", "tvm", "heads", "hybrid"]


def run(output: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    """Exit code and page of the command on a machine without a GPU."""
    command = [sys.executable, MEASURE / "on_a_gpu.py", "-o", output, *flags]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # noqa: TID251
    )
    assert output.is_file(), done.stderr
    return done.returncode, json.loads(output.read_text())


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(MEASURE))
    import on_a_gpu

    return on_a_gpu


def test_without_a_gpu_every_part_is_skipped(tmp_path: Path) -> None:
    code, page = run(tmp_path / "page.json")
    assert code == 0
    assert list(page["parts"]) == PARTS
    for part in page["parts"].values():
        assert part["status"] == "skipped"
        assert "no GPU: the driver" in part["reason"]
        assert part["figures"] == {}
    assert "no GPU: the driver" in page["gpu"]
    assert {"torch", "onnxruntime"} <= page["versions"].keys()


def test_the_parts_run_on_a_cpu(tmp_path: Path) -> None:
    parts = "onnxruntime,heads,hybrid"
    code, page = run(tmp_path / "page.json", "--cpu", "--only", parts, "--seconds", "1200")
    found = page["parts"]
    assert {name: part["reason"] for name, part in found.items()} == dict.fromkeys(found)
    assert (code, list(found)) == (0, parts.split(","))
    figures = found["onnxruntime"]["figures"]
    assert figures["operators"]["CPUExecutionProvider"]["GroupQueryAttention"] == 2
    assert {row["what"] for row in figures["golden"]} >= {"cycles", "next tokens"}
    assert {row["what"] for row in figures["model"]} >= {"decode + head", "score_0"}
    (line,) = figures["bench"]
    assert line["cycles"] >= 2
    assert line["decode_tokens_per_second"] > 0
    for name in ("heads", "hybrid"):
        figures = found[name]["figures"]
        assert len(figures["losses"]) == 10
        assert np.isfinite(figures["losses"]).all()
        assert figures["tokens_per_second"] > 0


def test_everything_that_is_missing_is_a_reason(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a GPU."""
    import onnxruntime

    monkeypatch.setattr(script, "find_gpu", dict)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["A", "B"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(script.PARTS, "hybrid", (("no_such_module", "json", "nor_this"), 1))
    options = argparse.Namespace(cpu=False, model="tiny", libraries=None)
    found = {part: list(script.reasons(part, options)) for part in PARTS}
    assert found.pop("tvm")[-1].startswith("nvcc is not on this machine")
    assert found == {
        "onnxruntime": ["this ONNX Runtime has only A, B: install onnxruntime-gpu"],
        "heads": [],
        "hybrid": ["not installed: no_such_module, nor_this"],
    }


def test_trainings_need_a_torch_with_cuda(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import on_a_gpu_parts

    monkeypatch.setattr(on_a_gpu_parts.torch.cuda, "is_available", lambda: False)
    for part in (on_a_gpu_parts.heads, on_a_gpu_parts.hybrid):
        with pytest.raises(script.Skip, match="finds no GPU: install a build with CUDA"):
            part(argparse.Namespace(cpu=False), tmp_path, None)


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ("print('so far'); os.kill(os.getpid(), 11)", "ended by signal 11"),
        ("sys.exit('no room')", "ended with code 1: no room"),
        ("os.fork(); time.sleep(600)", "not done in 4 s"),
    ],
)
def test_a_part_that_breaks_leaves_its_figures(
    ends: str, reason: str, script: ModuleType, tmp_path: Path
) -> None:
    place = tmp_path / "part.json"
    code = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(MEASURE)!r})
from on_a_gpu import Report
Report(Path({str(place)!r})).add(speed=3)
{ends}
"""
    page = script.watch([sys.executable, "-c", code], place, 4 if "sleep" in ends else 60)
    assert (page["status"], page["figures"]) == ("failed", {"speed": 3})
    assert page["reason"].startswith(reason)


@pytest.mark.skipif(bool(missing("tvm:cuda")), reason="needs TVM")
def test_libraries_are_compared_with_the_reference(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries for this CPU in place of those for GPUs, which only a GPU loads."""
    import on_a_gpu_parts
    import tvm

    def compile_here(self: object, source: Path, library: Path, variables: object) -> None:
        module = tvm.ir.load_json(source.read_text(encoding="utf-8"))
        tvm.compile(module, target="llvm").export_library(str(library))

    monkeypatch.setattr(tvm_cuda.TvmCuda, "_compile", compile_here)
    monkeypatch.setattr(tvm_cuda, "missing_tools", list)
    monkeypatch.setattr(tvm_cuda, "environment", lambda: contextlib.nullcontext({}))
    cache = CacheConfig(capacity=128, budget=64, chunk_size=16, catalyst_size=32, recent_size=8)
    policy, targets = PolicyConfig(name="snapkv"), {"target": "tvm:cuda", "also": ("reference",)}
    artifact = tmp_path / "m.lcc"
    save_tiny(tmp_path / "tiny", num_hidden_layers=1)
    compile_model(tmp_path / "tiny", artifact, CompileConfig(cache=cache, policy=policy, **targets))

    options = argparse.Namespace(cpu=True, libraries=artifact)
    report = script.Report(tmp_path / "page.json")
    on_a_gpu_parts.tvm(options, tmp_path, report)
    rows = report.figures["programs"]
    programs = {row["program"] for row in rows}
    assert programs == {"prefill_chunk", "decode", "head", "evict_0", "score_0"}
    assert any(row["error"] > 0 for row in rows)  # in half precision
    assert {row["allowed"] for row in rows if row["output"] == "token_position_out"} == {0}

    weights = artifact / "weights_tvm_cuda.bin"
    weights.write_bytes(np.roll(np.fromfile(weights, np.float16), 7).tobytes())
    with pytest.raises(on_a_gpu_parts.Wrong, match=r"not the reference's numbers: .*head logits"):
        on_a_gpu_parts.tvm(options, tmp_path, report)
