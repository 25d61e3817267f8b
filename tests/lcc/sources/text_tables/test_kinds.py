"""Tables of every kind of tokenizer, read slowly, against the library."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from lcc.errors import ModelError
from lcc.sources.text_tables.build import build
from lcc.sources.text_tables.compare import check
from lcc.sources.text_tables.interpret import Interpreter
from lcc.sources.text_tables.tables import TABLES, text_tables
from lcc.sources.text_tables.unfit import Unfit
from lcc.testing.tiny import CHAT_TEMPLATE, tiny_tokenizer
from lcc.testing.tiny_tokenizers import KINDS, gpt2, llama2, qwen

WORDS = [
    "the",
    " harbour",
    "Harbour",
    "<|end|>",
    "<s>",
    "<tool>",
    "<tool>>",
    "  ",
    "\r\n",
    "▁",
    "x=",
]
TEXTS = st.lists(
    st.sampled_from([*WORDS, *"aAé\u0301\u0323ſ'’ \t\n019½.,!中한가\u1161\u11a8😀"])
    | st.characters(exclude_categories=["Cs"]),
    max_size=25,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
def test_reads_and_shows_as_the_library_does(kind: str) -> None:
    backend = KINDS[kind]()
    tables = Interpreter(build(backend))

    @settings(max_examples=60)
    @given(TEXTS)
    def compare(text: str) -> None:
        ids = backend.encode(text, add_special_tokens=False).ids
        assert tables.encode(text) == ids
        for special in (False, True):
            shown = backend.decode(ids, skip_special_tokens=not special)
            assert tables.decode(ids, special=special) == shown

    compare()


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_finds_nothing(kind: str) -> None:
    backend = KINDS[kind]()
    check(backend, build(backend, "<tool>"), "<tool>")


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", "Lowercase"])
def test_forms(form: str) -> None:
    backend = tiny_tokenizer()
    backend.normalizer = getattr(normalizers, form)()
    tables = Interpreter(build(backend))
    some = (
        "aé\u0301\u0323\u0334\u0345\u093c\u09be\u1e9b\ufb01K한가\u1100\u1161\u11a8İΣς㎏\u0f71\u0f72"
    )
    for text in (some, some[::-1], *(x + y for x in some for y in some)):
        assert tables.encode(text) == backend.encode(text).ids
    letters = st.sampled_from(some) | st.characters(exclude_categories=["Cs"])

    @given(st.text(letters, max_size=20))
    def compare(text: str) -> None:
        assert tables.encode(text) == backend.encode(text).ids

    compare()


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[], Tokenizer]:
    """GPT-2's tokenizer with something else in its page."""

    def make() -> Tokenizer:
        page = json.loads(gpt2().to_str())
        change(page)
        return Tokenizer.from_str(json.dumps(page))

    return make


def without_bytes() -> Tokenizer:
    page = json.loads(llama2().to_str())
    page["model"]["merges"] = []
    del page["model"]["vocab"]["<0xC3>"]
    return Tokenizer.from_str(json.dumps(page))


REFUSED: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "dropout": (changed(lambda p: p["model"].update(dropout=0.5)), "dropout is 0.5"),
    "suffix": (
        changed(lambda p: p["model"].update(end_of_word_suffix="</w>", merges=[])),
        "end_of_word_suffix is '</w>'",
    ),
    "model": (
        changed(
            lambda p: p.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"})
        ),
        "model is of type WordLevel, wanted BPE",
    ),
    "normalizer": (
        changed(lambda p: p.update(normalizer={"type": "Nmt"})),
        "normalizer is of type Nmt",
    ),
    "pre-tokenizer": (
        changed(lambda p: p.update(pre_tokenizer={"type": "UnicodeScripts"})),
        "pre_tokenizer is of type UnicodeScripts",
    ),
    "decoder": (
        changed(lambda p: p.update(decoder={"type": "WordPiece", "prefix": "", "cleanup": True})),
        "decoder is WordPiece",
    ),
    "no decoder": (changed(lambda p: p.update(decoder=None)), "decoder is absent"),
    "pattern": (
        changed(
            lambda p: p.update(
                normalizer={"type": "Replace", "pattern": {"Regex": "(a)(?<=a)"}, "content": "b"}
            )
        ),
        "pattern '.*', place 5: ",
    ),
    "bytes": (without_bytes, "byte fall-back lacks the token <0xC3>"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_rules_are_refused_by_name(name: str) -> None:
    make, words = REFUSED[name]
    backend = make()
    with pytest.raises(Unfit, match=words):
        build(backend)
    found = text_tables({"tokenizer.json": backend.to_str().encode()})
    assert found.files == {}
    assert found.missing is not None


def test_files_of_a_model() -> None:
    assert text_tables({}).files == {}
    assert text_tables({}).missing is None
    page = tiny_tokenizer().to_str().encode()
    files = {"tokenizer.json": page, "chat_template.jinja": CHAT_TEMPLATE.encode()}
    found = text_tables(files)
    assert found.missing is None
    assert found.files == text_tables(files).files  # the same input, the same bytes
    assert list(found.files) == [TABLES]
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        text_tables({"tokenizer.json": b"{}"})


@pytest.mark.parametrize("size", [1, 3])
def test_the_comparison_finds_what_is_wrong(size: int) -> None:
    backend = qwen()
    data = bytearray(build(backend))
    ids = backend.encode(" harbour").ids
    content = backend.decode(ids[:1]).encode()[:size]
    place = data.index(content)
    data[place : place + len(content)] = b"\x00" * len(content)
    with pytest.raises(Unfit, match="the tables differ from the tokenizer library"):
        check(backend, bytes(data), "")
