"""The child: what it measures, what it loads, and how the parent understands its end."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lcc.errors import LccError, ModelError
from lcc.measure.bench import child, process
from lcc.measure.bench.measure import Request, measure
from lcc.measure.bench.process import ask


class Clock:
    """Stands in for `time`: only what is pretended to take time does."""

    now = cpu = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.cpu

    def takes(self, seconds: float, cores: float) -> None:
        self.now += seconds
        self.cpu += cores * seconds


class Stub:
    """Loads in 3 s, reads 100 tokens/s, writes 50, 51, ... at 4 tokens/s."""

    def __init__(self, clock: Clock, count: int | None = None) -> None:
        self.clock, self.count, self.prompts = clock, count, list[list[int]]()

    def load(self, request: Request) -> "Stub":
        self.clock.takes(3, cores=1)
        return self

    def generate(self, ids: list[int], count: int, on_token: Any) -> None:
        self.prompts.append(ids)
        self.clock.takes(len(ids) / 100, cores=2)
        for token in range(50, 50 + (self.count or count)):
            self.clock.takes(0 if token == 50 else 0.25, cores=1)
            on_token(token)

    def facts(self) -> dict[str, Any]:
        return {"kv_bytes": 8, "cycles": len(self.prompts)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("lcc.measure.bench.measure.time", clock)
    return clock


REQUEST = Request(
    kind="stub", source="", precision="fp32", threads=1, ids=list(range(300)), new_tokens=9
)


def test_measures_by_its_own_clock(clock: Clock) -> None:
    stub = Stub(clock)
    found = measure(REQUEST, stub.load)
    assert found.pop("peak_rss_bytes") > 1e6
    assert found == {
        "load_seconds": 3,
        "first_token_seconds": pytest.approx(3),
        "prefill_tokens_per_second": pytest.approx(100),
        "decode_tokens_per_second": pytest.approx(4),
        "cores_used": pytest.approx((2 * 3 + 1 * 2) / 5),
        "first_ids": [50, 51, 52, 53, 54, 55, 56, 57],
        "kv_bytes": 8,
        "cycles": 2,
    }
    warm_up, prompt = stub.prompts
    assert prompt == list(range(300))
    assert warm_up == list(range(255, -1, -1))  # no beginning of the prompt


def test_too_few_tokens_are_an_error(clock: Clock) -> None:
    with pytest.raises(LccError, match="wrote 1 tokens, wanted 9"):
        measure(REQUEST, Stub(clock, count=1).load)


def test_child_prepares_and_tells_how_far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def prepare(model: str, folder: Path, precision: str, report: Any) -> Path:
        report("half", 0.5)
        return folder / f"{model}-{precision}"

    name = "lcc.measure.bench.engines.stub"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(prepare=prepare))  # type: ignore[misc]
    said: list[dict] = []
    page = {"do": "prepare", "kind": "stub", "model": "m", "precision": "int4"}
    child.answer(page | {"folder": str(tmp_path)}, said.append)
    assert said == [{"step": "half", "done": 0.5}, {"source": str(tmp_path / "m-int4")}]


def test_child_of_an_artifact_loads_no_torch(tiny_artifact: Path) -> None:
    page = {"do": "measure", "kind": "artifact", "source": str(tiny_artifact), "precision": "fp32"}
    page |= {"ids": list(range(200)), "new_tokens": 4, "threads": 1}
    command = [process.COMMAND[0], "-X", "importtime", *process.COMMAND[1:]]
    done = subprocess.run(
        command, input=json.dumps(page), capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "onnxruntime" in loaded
    assert {"torch", "transformers", "onnx", "matplotlib"} & loaded == set()
    result = json.loads(done.stdout)["result"]
    assert result["cycles"] > 0
    assert result["kv_bytes"] > 0
    assert len(result["first_ids"]) == 4


def script(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", code))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            r"^ended by SIGKILL, out of memory\?$",
        ),
        ("import sys; sys.exit('Bus: no card\\n')", "^ended with code 1: Bus: no card$"),
        ('print(\'{"error": "beyond its window"}\')', "^beyond its window$"),
        ("pass", "^ended with code 0$"),
        ("import time; time.sleep(60)", "^not done in 0.5 s$"),
    ],
)
def test_how_it_ended(monkeypatch: pytest.MonkeyPatch, code: str, words: str) -> None:
    script(monkeypatch, code)
    begin = time.perf_counter()
    with pytest.raises(LccError, match=words):
        ask({}, timeout=0.5 if "sleep" in code else None)
    assert time.perf_counter() - begin < 30


def test_engines_may_print_and_errors_are_one_line(tmp_path: Path) -> None:
    page = {"do": "measure", "kind": "artifact", "source": str(tmp_path), "precision": "fp32"}
    with pytest.raises(LccError, match=r"^[^ :]+ is not an artifact: cannot read manifest.json"):
        ask(page | {"ids": [1], "new_tokens": 2, "threads": 1})
    assert child.one_line(RuntimeError("Exception from a.cpp:7:\n  Unsupported type\n\n")) == (
        "RuntimeError: Unsupported type"
    )
    assert child.one_line(KeyError("head_size")) == "KeyError: 'head_size'"
    assert child.one_line(ModelError("m: no model")) == "m: no model"
    assert child.one_line(MemoryError()) == "MemoryError"


def test_what_an_engine_prints_is_no_answer() -> None:
    code = "import sys; from lcc.measure.bench import child; import os\n"
    code += "child.answer = lambda page, say: (os.system('echo noise'), say({'source': 'x'}))\n"
    code += "child.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], input="{}", capture_output=True, text=True, check=True
    )
    assert done.stdout == '{"source": "x"}\n'
    assert done.stderr == "noise\n"
