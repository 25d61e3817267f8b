"""A hostile tokenizer.json is refused before this process reads it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lcc.errors import ArtifactError, ModelError
from lcc.runtime.text import trial
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.sources.text_facts import read_tokenizer
from lcc.testing.tiny import tiny_tokenizer

GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
NORMALIZERS: dict[str, tuple[Any, str]] = {
    "a size that is not there": (
        {"type": "Precompiled", "precompiled_charsmap": "/////////w=="},
        "ends the process with it: SIGABRT",
    ),
    "an empty table": (
        {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAA"},
        "the tokenizers library panics: index out of bounds",
    ),
    "a text that grows": (
        {"type": "Sequence", "normalizers": [GROWS] * 4},
        "ends the process with it: SIGABRT|more than 1.5 GB",
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LCC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "_passed", set())
    return tmp_path / "cache"


def page(normalizer: Any = None) -> bytes:
    whole = json.loads(tiny_tokenizer().to_str())
    return json.dumps(whole | {"normalizer": normalizer}).encode()


@pytest.mark.parametrize("kind", NORMALIZERS)
def test_what_would_end_the_process_is_refused(kind: str, tmp_path: Path, cache: Path) -> None:
    normalizer, words = NORMALIZERS[kind]
    (tmp_path / "tokenizer.json").write_bytes(page(normalizer))
    with pytest.raises(ArtifactError, match=f"tokenizer.json: .*({words})") as caught:
        Tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_compiling_refuses_it_too() -> None:
    normalizer, words = NORMALIZERS["an empty table"]
    with pytest.raises(ModelError, match=f"tokenizer.json: .*{words}"):
        read_tokenizer({"tokenizer.json": page(normalizer)})


def test_what_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(trial, "CHILD", child)
    monkeypatch.setattr(trial, "SECONDS", 0.2)
    with pytest.raises(ModelError, match=r"takes more than 0\.2 s for it"):
        trial.tried(page(), "tokenizer.json", ModelError)


def test_an_app_is_not_started_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program of one file, sys.executable is that program."""
    monkeypatch.setattr("sys.frozen", True, raising=False)
    with pytest.raises(ModelError, match=r"this program is no Python .*where liblcc is"):
        trial.tried(page(), "tokenizer.json", ModelError)


def test_what_has_passed_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(page())
    assert Tokenizer(tmp_path).encode("abc") == list(b"abc")
    assert len(list((cache / "tokenizers").iterdir())) == 1

    def no_process(*_: Any, **__: Any) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(subprocess, "run", no_process)
    Tokenizer(tmp_path)
    trial._passed.clear()
    Tokenizer(tmp_path)  # another process: the note in the folder
    (tmp_path / "tokenizer.json").write_bytes(page() + b"\n")
    with pytest.raises(ArtifactError, match=r"no process could be started .*where liblcc is"):
        Tokenizer(tmp_path)
