"""Other engines on a tiny model: the same ids in, the artifact's tokens out."""

import importlib.util
import json
from pathlib import Path

import pytest

from lcc.bench.contestants import PEERS, eager, press
from lcc.bench.contestants.artifact import Artifact
from lcc.bench.contestants.gguf_files import four_bits
from lcc.bench.contestants.kept import kept
from lcc.bench.measure import Model, Request
from lcc.bench.prompt import random_ids, text_ids
from lcc.errors import ModelError
from lcc.tiny import SPECIAL_TOKENS, VOCAB_SIZE

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
    assert not path.exists()
    kept(path, {"model": "c"}, make)
    assert path.read_text() == "3"


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
