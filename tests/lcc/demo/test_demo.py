"""The demo's parts on a tiny model, and the whole of it on SmolLM2."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lcc.artifact.manifest import read_manifest
from lcc.config import CacheConfig, CompileConfig
from lcc.demo import demo
from lcc.errors import LccError

CACHE = CacheConfig(capacity=128, budget=64, chunk_size=16, catalyst_size=32, recent_size=8)


def test_asks_in_a_process_without_torch(tiny_artifact: Path) -> None:
    steps: list[float] = []
    sample = demo.hide(tiny_artifact, "noise", 2000, 50, 1)
    result = demo.ask(
        tiny_artifact, sample, catalyst="Which key?", progress=lambda _, done: steps.append(done)
    )
    assert result.modules == []
    assert result.stats["tokens"] > 1900
    assert result.stats["cycles"] > 10
    assert steps == sorted(steps)
    assert steps[-1] == 1
    tokens = [count for count, _ in result.memory]
    assert 10 < len(tokens) <= demo.POINTS + 2
    assert tokens == sorted(tokens)
    assert all(rss > 10e6 for _, rss in result.memory)


def test_what_the_second_process_refuses_is_one_line(tiny_artifact: Path) -> None:
    sample = demo.hide(tiny_artifact, "noise", 300, 50, 1)
    with pytest.raises(LccError, match="the catalyst prompt has 90 tokens, catalyst_size is 32"):
        demo.ask(tiny_artifact, sample, catalyst="Which key?" * 9, progress=lambda *_: None)


def test_haystacks(tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("Nothing happened. " * 9)
    assert "The grass is green." in demo.hide(tiny_artifact, "noise", 900, 50, 1).context
    assert "Nothing happened." in demo.hide(tiny_artifact, str(tmp_path), 900, 50, 1).context
    sample = demo.hide(tiny_artifact, "python", 5000, 50, 1)
    assert sample.context.count("magic number") == 2
    assert 4500 < sample.tokens <= 5000


def test_artifact_is_kept(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LCC_CACHE_DIR", str(tmp_path))
    built: list[str] = []

    def build(config: CompileConfig) -> Path:
        folder, manifest = demo.compile_demo(
            str(tiny_folder), config, lambda step, _: built.append(step)
        )
        assert folder.parent == tmp_path
        assert manifest == read_manifest(folder)
        return folder

    first = build(CompileConfig(cache=CACHE))
    assert built
    built.clear()
    assert build(CompileConfig(cache=CACHE)) == first
    assert built == [], "it was there"
    weights = first / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert build(CompileConfig(cache=CACHE)) == first
    assert built, "it was damaged"


def test_torch_imported_while_compiling_is_quiet() -> None:
    code = (
        "import logging\n"
        "from lcc.cli.frame import quiet_torch\n"
        "with quiet_torch():\n"
        " import torch\n"
        " print(logging.getLogger('torch.onnx._internal').getEffectiveLevel())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == logging.ERROR


def test_picture() -> None:
    flat = demo.picture([(tokens, 500_000_000) for tokens in range(0, 4000, 1000)], height=2)
    assert flat == (
        "    500 MB │████\n"
        "           │████\n"
        "      0 MB └────\n"
        "            0 3,000 tokens"
    )  # fmt: skip
    rising = demo.picture([(1, 10_000_000), (2, 20_000_000), (3, 40_000_000)], height=1)
    assert rising.splitlines()[0] == "     40 MB │▂▄█"


def test_full_cache_bytes(tiny_artifact: Path) -> None:
    # 2 layers, keys and values, 2 KV heads of 16 float32 numbers
    assert demo.full_cache_bytes(read_manifest(tiny_artifact), 1000) == 2 * 2 * 2 * 16 * 4 * 1000
