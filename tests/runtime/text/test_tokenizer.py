import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from lcc.errors import ArtifactError, ConfigError
from lcc.runtime.text import library_tokenizer as text_module
from lcc.runtime.text.detokenize import Detokenizer, StopStrings
from lcc.runtime.text.tokenizer import Tokenizer as LccTokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog's back, 12345 times   in a row.\n\n",
    "    def f(x):\n        return x ** 2\t# naïve 😀 café\r\n",
    "中文没有空格，但是有标点。日本語もある。 ",
    "<|end|>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!! ??? ...   \n",
    "e\u0301e\u0301 \u00a0 ﬁne\u200b zero-width. ",
]


def a_text(length: int, seed: int = 0) -> str:
    choose = random.Random(seed)
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        sentence = choose.choice(SENTENCES)
        parts.append(sentence[choose.randrange(3) :])
    return "".join(parts)


def trained(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=kind == "whole text"))
    alphabet: list[str] = []
    if kind == "byte level":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "offsets trimmed":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "digits and expression":
        split = Regex(
            r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(split, "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    if kind == "whole text":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    corpus = (
        SENTENCES if kind != "whole text" else [s[i : i + 9] for s in SENTENCES for i in range(40)]
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken("<|end|>", normalized=False)])
    return tokenizer


KINDS = ["byte level", "offsets trimmed", "digits and expression", "metaspace", "whole text"]


@pytest.fixture(scope="module", params=KINDS)
def backend(request):
    return trained(request.param)


@pytest.fixture
def tokenizer(backend, tmp_path):
    backend.save(str(tmp_path / "tokenizer.json"))
    return LccTokenizer(tmp_path)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(text_module, "WINDOW", 1500)
    monkeypatch.setattr(text_module, "OVERLAP", 200)


def test_parts_give_the_ids_of_one_go(tokenizer, backend, small_windows):
    for seed in range(6):
        text = a_text(12_000, seed)
        parts = list(tokenizer.parts(text))
        assert len(parts) >= 5
        assert [end for _, end in parts] == sorted(end for _, end in parts)
        assert parts[-1][1] == len(text)
        ids = [token for part, _ in parts for token in part]
        assert ids == backend.encode(text, add_special_tokens=False).ids


@settings(max_examples=30, deadline=None)
@given(st.text(st.sampled_from("ab .,\n\t1é中😀'"), min_size=300, max_size=900))
def test_any_text_in_parts(text):
    tokenizer = LccTokenizer.__new__(LccTokenizer)
    tokenizer._codec = text_module.LibraryTokenizer(BYTE_LEVEL)
    window, overlap = text_module.WINDOW, text_module.OVERLAP
    text_module.WINDOW, text_module.OVERLAP = 120, 40
    try:
        assert tokenizer.encode(text) == BYTE_LEVEL.encode(text, add_special_tokens=False).ids
    finally:
        text_module.WINDOW, text_module.OVERLAP = window, overlap


BYTE_LEVEL = trained("byte level")


def test_one_endless_word(tokenizer, backend, small_windows):
    text = "b" * 9_001 + " end"  # one pre-token: no border before its end
    assert tokenizer.encode(text) == backend.encode(text, add_special_tokens=False).ids


def test_windows_are_joined_at_a_border_of_words_alone():
    size = 3 * text_module.AGREE
    ids, offsets = list(range(size)), list(range(size))
    words = [i % 4 == 0 for i in range(size)]

    def window(borders, shift):
        return text_module._Window(ids[shift:], offsets[shift:], borders[shift:], size)

    seam = text_module._seam(window(words, 0), window(words, 2), 0)
    assert seam is not None
    assert seam[0] % 4 == 0
    assert ids[seam[0]] == ids[2:][seam[1]]
    assert text_module._seam(window(words, 0), window([False] * size, 2), 0) is None
    assert text_module._seam(window([False] * size, 0), window(words, 2), 0) is None


def test_lone_surrogates_are_no_crash(tokenizer):
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a?b")


def test_memory_does_not_follow_the_text(tmp_path):
    """Several MB in parts take less than a tenth of what one go takes."""
    BYTE_LEVEL.save(str(tmp_path / "tokenizer.json"))
    code = """if True:
        import sys
        from lcc.runtime.stats import peak_rss_bytes
        from lcc.runtime.text.tokenizer import Tokenizer
        tokenizer, text = Tokenizer(sys.argv[1]), "The quick brown fox, and so on.\\n" * 100_000
        before = peak_rss_bytes()
        if sys.argv[2] == "parts":
            count = sum(len(ids) for ids, _ in tokenizer.parts(text))
        else:
            count = len(tokenizer.codec.backend.encode(text).ids)
        print(count, peak_rss_bytes() - before)
    """
    run = [sys.executable, "-c", code, str(tmp_path)]
    results = [
        subprocess.check_output([*run, how], text=True).split() for how in ("parts", "one go")
    ]
    (parts, small), (one_go, large) = [tuple(map(int, result)) for result in results]
    assert parts == one_go
    assert large > 100_000_000  # the case is not empty
    assert small < large / 10


def test_prefix_is_what_the_tokenizer_puts_first(tmp_path):
    backend = trained("byte level")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = LccTokenizer(tmp_path)
    assert tokenizer.prefix == [0]
    assert tokenizer.encode("fox", prefix=True) == [0, *tokenizer.encode("fox")]


def test_a_damaged_page_is_named(tmp_path):
    BYTE_LEVEL.save(str(tmp_path / "tokenizer.json"))
    for name in ("generation_config.json", "tokenizer_config.json", "chat_template.jinja"):
        for data in (b'{"eos_token_id": 4', b'{"x": ' + b"[" * 100_000, b"\xff\xfe{{"):
            if name.endswith(".jinja") and data.isascii():
                continue  # a template may say anything
            (tmp_path / name).write_bytes(data)
            with pytest.raises(ArtifactError, match=name):
                LccTokenizer(tmp_path)
        (tmp_path / name).unlink()


def test_no_tokenizer(tmp_path):
    tokenizer = LccTokenizer(tmp_path)
    assert (tokenizer.knows_text, tokenizer.prefix) == (False, [])
    for call in (lambda: tokenizer.encode("a"), lambda: tokenizer.decode([1])):
        with pytest.raises(ConfigError, match="no tokenizer; give token ids in place of text"):
            call()


def test_text_of_another_type(tokenizer):
    with pytest.raises(ConfigError, match="text is bytes, wanted str"):
        list(tokenizer.parts(b"abc"))


# From ids to text.


def test_pieces_are_the_text(tokenizer):
    for seed in range(3):
        ids = tokenizer.encode(a_text(400, seed))
        detokenizer = Detokenizer(tokenizer.decode)
        pieces = [detokenizer.add(token) for token in ids] + [detokenizer.end()]
        assert "".join(pieces) == tokenizer.decode(ids)
        assert len([piece for piece in pieces if piece]) > len(ids) / 3


def test_pieces_continue_their_context(tokenizer):
    ids = tokenizer.encode("the fox jumps over the dog")
    before = tokenizer.decode(ids[:4])
    detokenizer = Detokenizer(tokenizer.decode, ids[:4])
    pieces = [detokenizer.add(token) for token in ids[4:]] + [detokenizer.end()]
    assert before + "".join(pieces) == tokenizer.decode(ids)


def utf8(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


def test_half_a_character_is_held_back():
    detokenizer = Detokenizer(utf8)
    assert [detokenizer.add(byte) for byte in "a😀é".encode()] == ["a", "", "", "", "😀", "", "é"]
    assert detokenizer.end() == ""
    detokenizer.add(0xF0)
    assert detokenizer.end() == "\ufffd"


def test_bytes_that_are_no_text_are_not_held_for_ever():
    detokenizer = Detokenizer(utf8)
    assert "".join(detokenizer.add(0xFF) for _ in range(100)).count("\ufffd") >= 80


@given(
    st.lists(st.sampled_from("abX"), max_size=30),
    st.lists(st.text("abX", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings(pieces, stops):
    matcher, shown = StopStrings(stops), ""
    for piece in pieces:
        shown += matcher.add(piece)
        if matcher.found is not None:
            break
    else:
        shown += matcher.end()
    text = "".join(pieces)
    places = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not places:
        assert shown == text
    else:  # a stop string is seen with its last character
        seen = text[: min(places)]
        cut = min(seen.find(stop) for stop in stops if stop in seen)
        assert shown == text[:cut]


def test_stop_string_in_pieces():
    matcher = StopStrings(["\nUser:", "END"])
    assert [matcher.add(p) for p in ("Hello", "\nUs", "ual ", "E", "N", "X", "\nUser", ": hi")] == [
        "Hello", "", "\nUsual ", "", "", "ENX", "", "",
    ]  # fmt: skip
    assert matcher.found == "\nUser:"
    assert StopStrings([""]).add("abc") == "abc"


def test_tokens_that_show_nothing_are_not_kept():
    sizes = []

    def decode(ids: list[int]) -> str:
        sizes.append(len(ids))
        return "".join("" if token == 7 else chr(token) for token in ids)

    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.add(token) for token in [65, *[7] * 500, 66]]
    assert "".join(pieces) == "AB"
    assert max(sizes) < 30


def test_stop_strings_with_special_tokens():
    def shown(stop: str, *pieces: tuple[str, bool]) -> str:
        matcher, text = StopStrings([stop]), ""
        for piece, visible in pieces:
            text += matcher.add(piece, shown=visible)
            if matcher.found:
                return f"{text}|"
        return text + matcher.end()

    said = ("Hello", True), ("<start>", False), ("user", True), (" says", True)
    assert shown("<start>", *said) == "Hello|"
    assert shown("<start>user", *said) == "Hello|"
    assert shown("lo<start>us", *said) == "Hel|"
    assert shown(" says", *said) == "Hellouser|"
    assert shown("<start>system", *said) == "Hellouser says"
    assert shown("rt>", *said) == "Hello|"
