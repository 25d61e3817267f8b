"""Other engines on a tiny model: the same ids in, the artifact's tokens out."""

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from lcc.errors import ConfigError, ModelError
from lcc.measure.bench.engines import PEERS, eager, llama_gguf, ort_genai, press
from lcc.measure.bench.engines.artifact import Artifact
from lcc.measure.bench.engines.gguf_files import four_bits
from lcc.measure.bench.engines.kept import kept
from lcc.measure.bench.measure import Model, Request
from lcc.measure.bench.prompt import random_ids, text_ids
from lcc.testing.tiny import SPECIAL_TOKENS, VOCAB_SIZE

IDS = list(b"It is a truth universally acknowledged, that a single man in possession")


def asked(source: Path, **options: int) -> Request:
    return Request(
        kind="",
        source=str(source),
        precision="fp32",
        ids=IDS,
        new_tokens=6,
        threads=1,
        options=options,
    )


def written(model: Model, ids: list[int] = IDS) -> list[int]:
    tokens: list[int] = []
    model.generate(ids, 6, tokens.append)
    return tokens


def test_transformers_writes_what_the_artifact_writes(
    tiny_folder: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    source = eager.prepare(str(tiny_folder), tmp_path, "fp32", lambda step, done: None)
    peer, artifact = eager.load(asked(source)), Artifact(asked(tiny_artifact))
    wanted = written(artifact)
    assert artifact.facts()["cycles"] == 0
    assert written(peer) == wanted
    assert peer.facts() == {"kv_bytes": 2 * 2 * 2 * 16 * 4 * (len(IDS) + 5)}
    assert written(artifact, IDS[::-1]) != wanted  # or it would show nothing
    assert written(artifact) == written(peer) == wanted  # nothing is left of another prompt


def test_a_press_keeps_the_budget(tiny_folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("kvpress") is None:
        pytest.skip(f"kvpress is not installed; {PEERS['kvpress'].pip}")
    source = press.prepare(str(tiny_folder), tmp_path, "fp32", lambda step, done: None)
    peer = press.load(asked(source, budget=66))  # SnapKV's own window is 64
    written(peer)
    assert peer.facts() == {"kv_bytes": 2 * 2 * 2 * 16 * 4 * (66 + 5)}
    whole = press.load(asked(source, budget=len(IDS)))
    assert written(whole) == written(eager.load(asked(source)))


def test_what_is_made_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text(str(len(made)))

    path = tmp_path / "sub" / "weights"
    assert kept(path, {"model": "a"}, make) == path
    kept(path, {"model": "a"}, make)
    assert (len(made), path.read_text()) == (1, "1")
    kept(path, {"model": "b"}, make)
    assert (len(made), path.read_text()) == (2, "2")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        kept(path, {"model": "c"}, fail)
    assert path.read_text() == "2"
    kept(path, {"model": "b"}, make)
    assert len(made) == 2
    kept(path, {"model": "c"}, make)
    assert path.read_text() == "3"
    assert {each.name for each in path.parent.iterdir()} == {"weights", "weights.made.json"}


@pytest.mark.parametrize("name", ["weights", "weights.partial"])
def test_what_others_made_is_left_alone(tmp_path: Path, name: str) -> None:
    own = tmp_path / name / "own.txt"
    own.parent.mkdir()
    own.write_text("precious")
    words = "weights is there and was not made by lcc bench; move it, or give another --peers"
    refuses = pytest.raises(ConfigError, match=words)
    with refuses if name == "weights" else contextlib.nullcontext():
        kept(tmp_path / "weights", {"model": "a"}, lambda path: path.write_text("made"))
    assert own.read_text() == "precious"


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    for text in ("1", "2"):

        def make(path: Path, text: str = text) -> None:
            path.mkdir()
            (path / f"{text}.bin").write_text(text)

        path = kept(tmp_path / "weights", {"model": text}, make)
        assert [each.name for each in path.iterdir()] == [f"{text}.bin"]


@pytest.mark.parametrize(("budget", "tokens"), [(66, 72), (90, 1000), (1024, 4096), (7, 25)])
def test_the_ratio_of_a_press_leaves_the_budget(
    monkeypatch: pytest.MonkeyPatch, budget: int, tokens: int
) -> None:
    """As kvpress counts what stays: int(tokens * (1 - ratio))."""
    given: dict[str, float] = {}

    def snap(**options: float) -> object:
        given.update(options)
        return lambda model: contextlib.nullcontext()

    monkeypatch.setitem(sys.modules, "kvpress", SimpleNamespace(SnapKVPress=snap))  # type: ignore[misc]
    peer = object.__new__(press.Pressed)
    peer.budget, peer.model = budget, None
    peer.reading(tokens)
    assert int(tokens * (1 - given["compression_ratio"])) == budget


def test_onnxruntime_genai_is_greedy_whatever_its_folder_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = MagicMock()
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", package)
    package.Generator.return_value.get_next_tokens.return_value = [5]
    peer = object.__new__(ort_genai.Generator)
    peer.model = None
    assert written(peer) == [5] * 6
    options = package.GeneratorParams.return_value.set_search_options.call_args.kwargs
    assert options["repetition_penalty"] == 1.0
    assert options["do_sample"] is False
    assert options["min_length"] == options["max_length"] == len(IDS) + 6


@pytest.mark.parametrize(
    ("lengths", "both"),
    [
        ({}, 2 * 64),
        ({"qwen3.attention.key_length": "128", "qwen3.attention.value_length": "96"}, 128 + 96),
        ({"qwen3.attention.key_length": "128"}, 128 + 64),
    ],
)
def test_llama_cpp_keeps_heads_as_long_as_the_file_says(
    monkeypatch: pytest.MonkeyPatch, lengths: dict[str, str], both: int
) -> None:
    sizes = {"n_embd": 1024, "n_head": 16, "n_head_kv": 8, "n_layer": 3}
    counts = {f"llama_model_{name}": lambda model, size=size: size for name, size in sizes.items()}
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(**counts))  # type: ignore[misc]
    peer = object.__new__(llama_gguf.Llama)
    page = {"general.architecture": "qwen3", **lengths}
    peer.llama, peer.bytes = SimpleNamespace(model=None, metadata=page, n_ctx=lambda: 100), 2
    assert peer.facts() == {"kv_bytes": 2 * 8 * 3 * both * 100}


def test_a_folder_is_no_gguf_file(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"is no GGUF file; give --model FILE\.gguf"):
        four_bits(str(tiny_folder))


def test_prompts(tiny_artifact: Path) -> None:
    assert text_ids(tiny_artifact, "abc", 7) == [97, 98, 99, 97, 98, 99, 97]
    ids = random_ids(tiny_artifact, 5000, seed=1)
    assert set(ids) == set(range(VOCAB_SIZE - len(SPECIAL_TOKENS)))
    assert random_ids(tiny_artifact, 5000, seed=1) == ids
    assert random_ids(tiny_artifact, 10, seed=2) != ids[:10]
    assert json.loads(json.dumps(ids)) == ids
