"""Texts, messages and what goes with them: the native runtime does as Python's."""

import ctypes
from ctypes import c_char_p, c_float, c_int32, c_size_t
from pathlib import Path

import numpy as np
import pytest

import lcc.runtime
from lcc.runtime.session import Session
from lcc.testing.golden_cases import Artifacts
from lcc.testing.native_library import onnx_runtime_library
from lcc.testing.native_session import (
    DONE,
    FeedOptions,
    GenerateOptions,
    Library,
    LibraryError,
    Message,
    NativeSession,
)

TEXT = "Ä bird — 🐦 — sings <|im_end|> at dawn, and the 黄昏 is quiet.\n\nThen it rains again. " * 6
GREEDY = {"top_k": -1, "top_p": -1, "min_p": -1, "repetition_penalty": -1, "seed": -1}


@pytest.fixture(scope="module")
def library(native_build: Path) -> Library:
    return Library(native_build / "liblcc.so")


@pytest.fixture
def both(library: Library, golden_artifact: Artifacts) -> tuple[Session, NativeSession]:
    folder = golden_artifact("consensus")
    model = library.open(folder, onnx_runtime_library(), threads=1)
    return lcc.runtime.open(folder, threads=1), model.session()


def same(python: Session, native: NativeSession) -> None:
    """What both hold, and what comes next."""
    stats = native.stats()
    assert (stats.tokens, stats.used) == (python.tokens, python.used)
    assert stats.cycles == len(python.cycles)
    for layer in (0, 1):
        assert np.array_equal(native.kept(layer), python.kept_tokens(layer))
    assert np.abs(native.logits() - python.next_logits()).max() < 1e-4


def pieces(session: NativeSession) -> str:
    piece, size, text = c_char_p(), c_size_t(), b""
    told = ctypes.byref(piece), ctypes.byref(size)
    while session.library("lcc_generate_next", session.handle, *told) != DONE:
        text += ctypes.string_at(piece, size.value)
    return text.decode()


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("plain", [False, True])
def test_a_text_in_pieces(both: tuple[Session, NativeSession], size: int, plain: bool) -> None:
    """Wherever it is cut, inside of a character or of a control token, too."""
    python, native = both
    python.feed(TEXT, plain=plain)
    how = FeedOptions(plain=plain)
    native.library("lcc_feed_begin", native.handle, ctypes.byref(how))
    data = TEXT.encode()
    for start in range(0, len(data), size):
        part = data[start : start + size]
        native.library("lcc_feed_write", native.handle, part, c_size_t(len(part)))
    read = c_size_t()
    native.library("lcc_feed_end", native.handle, ctypes.byref(read))
    assert read.value == python.tokens
    assert python.cycles
    same(python, native)


def test_marked_places(both: tuple[Session, NativeSession]) -> None:
    """What is between two marks is letters; a mark by itself parts texts."""
    python, native = both
    text = "a \uf8f0<|im_end|>\uf8f1 b\uf8f1c\uf8f0d <|im_end|> \uf8f0<|im_start|>\uf8f1\uf8f0e"
    for part in (text, text[:9], "<|im_end|> \uf8f0\uf8f1f"):
        python.feed(part)
        data = part.encode()
        native.library("lcc_feed", native.handle, data, c_size_t(len(data)), None, None)
        same(python, native)


def test_the_likelihood_of_each_id(both: tuple[Session, NativeSession]) -> None:
    python, native = both
    ids = python.encode(TEXT)[:200]
    got = (c_float * len(ids))()
    for part in (slice(0, 90), slice(90, 200)):
        some = ids[part]
        array, here = (c_int32 * len(some))(*some), ctypes.byref(got, 4 * part.start)
        native.library("lcc_nll", native.handle, array, c_size_t(len(some)), here)
        wanted = python.nll(some)
        assert np.allclose(np.array(got)[part], wanted, atol=1e-4)
    same(python, native)


def test_what_is_protected_stays(both: tuple[Session, NativeSession]) -> None:
    python, native = both
    first = "Remember the number 417. "
    python.feed(first, protect=True)
    how = FeedOptions(protect=1)
    data = first.encode()
    native.library("lcc_feed", native.handle, data, c_size_t(len(data)), ctypes.byref(how), None)
    count = python.tokens
    for session in (python, native):
        session.feed(python.encode(TEXT))
    assert python.cycles
    assert native.kept(1)[:, :count].tolist() == [list(range(count))] * 2
    same(python, native)


def test_a_catalyst_of_ones_own(both: tuple[Session, NativeSession]) -> None:
    python, native = both
    native.feed(python.encode(TEXT))
    usual = native.kept(1).tolist()
    native.reset()
    catalyst = "z" * 22
    python.catalyst = catalyst
    data = catalyst.encode()
    native.library("lcc_set_catalyst", native.handle, data, c_size_t(len(data)))
    for session in (python, native):
        session.feed(python.encode(TEXT))
    assert native.kept(1).tolist() != usual
    same(python, native)
    long = "?" * 100
    with pytest.raises(LibraryError, match="100 tokens, catalyst_size is 24"):
        native.library("lcc_set_catalyst", native.handle, long.encode(), c_size_t(len(long)))


@pytest.mark.parametrize("plain", [False, True])
def test_a_conversation(both: tuple[Session, NativeSession], plain: bool) -> None:
    """Two turns: here they are given as they come, there all of them each time."""
    python, native = both
    told: list[dict[str, str]] = []
    talks = [
        [("system", "Be brief."), ("user", "  Who <|im_end|> sings at dawn? ")],
        [("user", "<|im_start|>And when it rains? 黄昏" * 9)],
    ]
    for talk in talks:
        told += [{"role": role, "content": content} for role, content in talk]
        wanted = "".join(python.chat(told, plain=plain, max_new_tokens=3, temperature=0.0))
        told.append({"role": "assistant", "content": wanted})
        array = (Message * len(talk))(*((r.encode(), c.encode()) for r, c in talk))
        how = GenerateOptions(max_new_tokens=3, temperature=0, plain=plain, **GREEDY)
        native.library(
            "lcc_chat_start", native.handle, array, c_size_t(len(talk)), ctypes.byref(how)
        )
        assert pieces(native) == wanted
        same(python, native)
    later = (Message * 1)((b"system", b"Be long."))
    with pytest.raises(LibraryError, match="only the first message"):
        native.library("lcc_chat_start", native.handle, later, c_size_t(1), ctypes.byref(how))
    stranger = (Message * 1)((b"tool", b"42"))
    with pytest.raises(LibraryError, match='no role "tool"'):
        native.library("lcc_chat_start", native.handle, stranger, c_size_t(1), ctypes.byref(how))
    same(python, native)


def test_stop_texts(both: tuple[Session, NativeSession]) -> None:
    """An answer that is told in pieces ends before them, and they are not part of it."""
    python, native = both
    prompt = "  Who sings at dawn? "
    whole = "".join(python.generate(prompt, max_new_tokens=24, temperature=0.0))
    stop = whole[5:7]
    texts = (c_char_p * 2)(b"never comes", stop.encode())
    how = GenerateOptions(max_new_tokens=24, temperature=0, stop_count=2, **GREEDY)
    how.stop = ctypes.cast(texts, ctypes.c_void_p)
    data = prompt.encode()
    native.library(
        "lcc_generate_start", native.handle, data, c_size_t(len(data)), ctypes.byref(how)
    )
    python.reset()
    wanted = "".join(python.generate(prompt, max_new_tokens=24, temperature=0.0, stop=[stop]))
    assert pieces(native) == wanted == whole[: whole.index(stop)]
