"""Python reads text through the native library as it does through the tokenizers library."""

import _ctypes
import random
import subprocess
import sys
from pathlib import Path

import pytest

import lcc.runtime
from lcc.artifact.schedule import TextFacts
from lcc.errors import ArtifactError, ConfigError
from lcc.runtime.text.detokenize import Detokenizer
from lcc.runtime.text.native_tokenizer import PART
from lcc.runtime.text.seam import behind, following
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.sources.text_tables.build import build
from lcc.testing.tiny_tokenizers import KINDS

LETTERS = "aAbestTdDlLmrvz '\t\n\r 019.,!?-_/|<>(){}=▁éßſ中あア한ﬁ\u0301\u200d\xa0😀\x00\ud83d"
WORDS = ["the", " harbour", "Harbour", "<|end|>", "<s>", "<tool>", "<", "\uf8f0", "\uf8f1"]


@pytest.fixture
def library(native_build: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (path,) = [path for end in ("so", "dylib") for path in native_build.glob(f"liblcc.{end}")]
    monkeypatch.setenv("LCC_LIBRARY", str(path))
    return path


def both(kind: str, folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """The same tokenizer by the tokenizers library, and by the native one."""
    backend = KINDS[kind]()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "text.bin").write_bytes(build(backend))
    wanted = Tokenizer(folder)
    return wanted, Tokenizer(folder, facts=TextFacts(prefix=tuple(wanted.prefix)))


def drawn(draw: random.Random, size: int) -> str:
    parts = list[str]()
    for _ in range(size):
        kind = draw.random()
        if kind < 0.7:
            parts.append(draw.choice(LETTERS))
        elif kind < 0.8:
            parts.append(draw.choice(LETTERS) * draw.randint(2, 40))
        else:
            parts.append(draw.choice(WORDS))
    return "".join(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ids_and_the_same_text(kind: str, library: Path, tmp_path: Path) -> None:
    wanted, got = both(kind, tmp_path)
    assert type(wanted.codec) is not type(got.codec)
    assert (got.special_ids, got.prefix) == (wanted.special_ids, wanted.prefix)
    draw = random.Random(7)
    for size in range(120):
        text = drawn(draw, size)
        marked = wanted.literals.mark(text)
        assert got.literals.mark(text) == marked
        for each in (text, marked):
            assert got.encode(each) == wanted.encode(each)
        ids = wanted.encode(text)
        for special in (False, True):
            assert got.decode(ids, special=special) == wanted.decode(ids, special=special)
    pieces = [Detokenizer(each.decode, ids[:2]) for each in (wanted, got)]
    for token in ids[2:]:
        assert pieces[0].add(token) == pieces[1].add(token)
    assert pieces[0].end() == pieces[1].end()


@pytest.mark.parametrize("kind", ["qwen", "llama2", "metaspace_first"])
def test_the_same_seams(kind: str, library: Path, tmp_path: Path) -> None:
    wanted, got = both(kind, tmp_path)
    draw = random.Random(8)
    for _ in range(150):
        before, text = drawn(draw, draw.randint(1, 9)), drawn(draw, draw.randint(1, 9))
        held = wanted.encode(before)
        for rewindable in (0, 99):
            found = [following(each, before, text, held, rewindable=rewindable)
                     for each in (wanted, got)]  # fmt: skip
            ids = [[token for part, _ in each.parts for token in part] for each in found]
            assert (ids[0], found[0].drop) == (ids[1], found[1].drop)
        whole = before + text
        assert behind(wanted, whole, len(before)) == behind(got, whole, len(before))


def test_a_long_text_comes_in_parts(library: Path, tmp_path: Path) -> None:
    wanted, got = both("qwen", tmp_path)
    text = drawn(random.Random(9), 48_000)
    assert len(text) > 2 * PART
    parts = list(got.parts(text, skip=3))
    assert [end for _, end in parts] == [PART, 2 * PART, len(text)]
    assert [token for ids, _ in parts for token in ids] == wanted.encode(text)[3:]
    assert next(got.parts("")) == next(wanted.parts("")) == ([], 0)


def test_an_artifact_is_read_without_the_tokenizers_library(
    library: Path, tiny_artifact: Path
) -> None:
    code = (
        "import sys, lcc.runtime\n"
        "session = lcc.runtime.open(sys.argv[1], threads=1)\n"
        "session.feed('It was <|im_end|> the é of times.', plain=True)\n"
        "print(session.encode('It was'), ''.join(session.generate('Who?', max_new_tokens=4)))\n"
        "assert 'tokenizers' not in sys.modules"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(tiny_artifact)], check=True, capture_output=True, text=True
    ).stdout
    assert output.startswith(str(list(b"It was")))


def test_a_hostile_page_beside_the_tables_is_not_read(library: Path, tmp_path: Path) -> None:
    wanted, _ = both("gpt2", tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"[" * 100_000)
    text = "the harbour"
    assert Tokenizer(tmp_path, facts=TextFacts()).encode(text) == wanted.encode(text)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: "):
        Tokenizer(tmp_path)


def test_without_tables_or_library_as_before(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both("gpt2", tmp_path)
    monkeypatch.delenv("LCC_LIBRARY")
    monkeypatch.setattr(lcc.runtime.library, "FOLDER", tmp_path)
    wanted = Tokenizer(tmp_path).encode("the harbour")
    assert Tokenizer(tmp_path, facts=TextFacts()).encode("the harbour") == wanted
    monkeypatch.setenv("LCC_LIBRARY", str(library))
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer(tmp_path, facts=TextFacts()).encode("the harbour") == wanted
    (tmp_path / "text.bin").unlink()
    assert not Tokenizer(tmp_path, facts=TextFacts()).knows_text


def test_what_cannot_be_read(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both("gpt2", tmp_path)
    data = (tmp_path / "text.bin").read_bytes()
    (tmp_path / "text.bin").write_bytes(data[:-4])
    with pytest.raises(ArtifactError, match=r"text\.bin: .*another size than it says"):
        Tokenizer(tmp_path, facts=TextFacts())
    monkeypatch.setenv("LCC_LIBRARY", _ctypes.__file__)
    with pytest.raises(ConfigError, match="is of an older lcc, it has no lcc_"):
        Tokenizer(tmp_path, facts=TextFacts())
    monkeypatch.setenv("LCC_LIBRARY", str(tmp_path / "text.bin"))
    with pytest.raises(ConfigError, match=r"text\.bin.*build it anew"):
        Tokenizer(tmp_path, facts=TextFacts())
    monkeypatch.setenv("LCC_LIBRARY", str(tmp_path / "missing.so"))
    with pytest.raises(ConfigError, match="no file is there; wanted liblcc"):
        Tokenizer(tmp_path, facts=TextFacts())
