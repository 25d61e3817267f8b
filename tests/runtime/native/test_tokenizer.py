"""The native tokenizer against the tokenizers library, for tokenizers of every kind."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from lcc.runtime.text.literal import MARKED, Literals, Speller
from lcc.sources.text_tables.build import build
from lcc.sources.text_tables.layout import ENTRY, HEADER
from lcc.testing.native_tokenizer import NativeTokenizer, build_encode_lines, compiler
from lcc.testing.tiny_tokenizers import KINDS, gpt2, strict_added

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler on this machine")

TEMPLATE = "<tool>"
WORDS = ["the", " harbour", "Harbour", "12345", "<|end|>", "<s>", "<tool>", "<tool>>", " x= ", "<"]
LETTERS = (
    "aAbestTdDlLmrvz '’\t\n\r 019Ⅷ½.,!?-_/|<>(){}=▁"
    "éßſ中あア한가ﬁ\u0301\u0323\u1161\u11a8\u200d\xa0\u3000😀\x00\x85"
)
PIECES = (0, 1, 3, -1)  # bytes that are fed at once: all, few, of many sizes


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checks = ("-O0", "-D_GLIBCXX_ASSERTIONS", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    return build_encode_lines(tmp_path_factory.mktemp("native"), *checks)


def native_of(backend: Tokenizer, program: Path, folder: Path) -> NativeTokenizer:
    (folder / "text.bin").write_bytes(build(backend, TEMPLATE))
    return NativeTokenizer(program, folder / "text.bin")


def drawn(count: int) -> Iterator[str]:
    """Texts that try every rule; the first ones are short."""
    draw = random.Random(4)
    yield ""
    for size in range(count):
        parts = list[str]()
        for _ in range(draw.randint(0, min(size, 25))):
            kind = draw.random()
            if kind < 0.6:
                parts.append(draw.choice(LETTERS))
            elif kind < 0.75:
                parts.append(draw.choice(LETTERS) * draw.randint(2, 70))
            elif kind < 0.85:
                low, high = draw.choice(((0, 0x3000), (0x3000, 0xD800), (0xE000, 0x20000)))
                parts.append(chr(draw.randrange(low, high)))
            else:
                parts.append(draw.choice(WORDS))
        yield "".join(parts)


def ids_of(backend: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [each.ids for each in backend.encode_batch_fast(texts, add_special_tokens=False)]


@pytest.mark.parametrize("kind", KINDS)
def test_encodes_as_the_library_does(kind: str, program: Path, tmp_path: Path) -> None:
    backend = KINDS[kind]()
    native, texts = native_of(backend, program, tmp_path), list(drawn(600))
    wanted = ids_of(backend, texts)
    assert len({token for ids in wanted for token in ids}) > 50
    for piece in PIECES:
        assert native.encode(texts, piece=piece) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_decodes_as_the_library_does(kind: str, program: Path, tmp_path: Path) -> None:
    backend = KINDS[kind]()
    native = native_of(backend, program, tmp_path)
    many = ids_of(backend, list(drawn(300)))
    for special in (False, True):
        wanted = backend.decode_batch(many, skip_special_tokens=not special)
        for one_by_one in (False, True):
            assert native.decode(many, special=special, one_by_one=one_by_one) == wanted


def read_plain(backend: Tokenizer, text: str) -> list[int]:
    """As the Python runtime reads a text whose control tokens are plain text."""
    literals = Literals(backend.get_added_tokens_decoder().values(), TEMPLATE)
    speller, ids, place = Speller(backend), list[int](), 0
    marked = literals.mark(text)
    for match in [*MARKED.finditer(marked), None]:
        stretch = marked[place : match.start() if match else len(marked)]
        ids += backend.encode(stretch, add_special_tokens=False).ids
        if match is not None:
            ids += speller.encode(match[1])
            place = match.end()
    return ids


@pytest.mark.parametrize("kind", ["qwen", "phi3", "metaspace_first", "strict_added"])
def test_reads_control_tokens_as_plain_text(kind: str, program: Path, tmp_path: Path) -> None:
    backend = KINDS[kind]()
    native, texts = native_of(backend, program, tmp_path), list(drawn(150))
    wanted = [read_plain(backend, text) for text in texts]
    assert wanted != ids_of(backend, texts)
    for piece in PIECES:
        assert native.encode(texts, "plain", piece=piece) == wanted


@pytest.mark.parametrize("kind", ["gpt2", "llama2"])
def test_invalid_bytes_are_read_as_python_reads_them(
    kind: str, program: Path, tmp_path: Path
) -> None:
    backend, draw = KINDS[kind](), random.Random(5)
    native = native_of(backend, program, tmp_path)
    some = [
        b"a",
        b"\x80",
        b"\xc3",
        b"\xa9",
        b"\xe2\x82",
        b"\xac",
        b"\xf0\x9f",
        b"\xed\xa0\x80",
        b"\xff",
    ]
    texts = [b"".join(draw.choices(some, k=draw.randint(1, 12))) for _ in range(400)]
    wanted = ids_of(backend, [text.decode("utf-8", "replace") for text in texts])
    for piece in PIECES:
        assert native.encode(texts, piece=piece) == wanted


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "llama2", "gemma"])
@pytest.mark.parametrize("letter", ["a", " ", "\n", "中", "\u0301", "<", "ab", "1"])
def test_a_long_run_takes_no_square_of_time(
    kind: str, letter: str, program: Path, tmp_path: Path
) -> None:
    backend = KINDS[kind]()
    native = native_of(backend, program, tmp_path)
    (tmp_path / "run.txt").write_text(letter * 200_000 + "x", encoding="utf-8", newline="")
    seconds, count = native.time(tmp_path / "run.txt")
    assert count > 0
    assert seconds < 5  # a square of 200,000 takes minutes


def test_a_pattern_that_fails_late_takes_no_square_of_time(program: Path, tmp_path: Path) -> None:
    from tokenizers import Regex, pre_tokenizers

    backend = gpt2()
    split = pre_tokenizers.Split(Regex(r"\s+$|a+b"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    native = native_of(backend, program, tmp_path)
    (tmp_path / "run.txt").write_text(" " * 300_000 + "x" + "a" * 300_000, encoding="utf-8")
    assert native.time(tmp_path / "run.txt")[0] < 5
    texts = [*drawn(300), " " * 300 + "x  \n " + "a" * 400 + " " + "a" * 200 + "b" + " " * 300]
    wanted = ids_of(backend, texts)
    for piece in PIECES:
        assert native.encode(texts, piece=piece) == wanted


def test_a_damaged_file_is_an_error_that_names_the_place(program: Path, tmp_path: Path) -> None:
    data, draw = build(strict_added(), TEMPLATE), random.Random(6)
    entries = [ENTRY.unpack_from(data, HEADER.size + 24 * i) for i in range(data[12])]
    native = NativeTokenizer(program, tmp_path / "text.bin")
    texts, refused = ["Harbour <mask> é\u0301 the x=" * 9, "\u1161中 <tool>"], list[str]()
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 1, 6))):
            _, _, place, size = draw.choice(entries)
            where = draw.randrange(place, place + size) if size else draw.randrange(700)
            damaged[where] = draw.choice((0, 1, 0x80, 0xFF))
        if draw.random() < 0.1:
            damaged = damaged[: draw.randrange(len(damaged))]
        (tmp_path / "text.bin").write_bytes(damaged)
        try:
            native.encode(texts, "plain", piece=-1)
            native.decode([list(range(-3, 600))], special=True)
        except RuntimeError as error:
            refused.append(str(error))  # 1: an error, and no signal
    assert len(refused) > 30
    assert [each for each in refused if not each.startswith(f"1: {tmp_path / 'text.bin'}: ")] == []


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (0, b"x", "does not begin as tokenizer tables"),
        (8, b"\x09", "version 9, this runtime reads version 1"),
        (16, b"\x00\x00", "another size than it says"),
        (32, b"\x63", "a section of unknown kind"),
        (40, b"\x01", "section info 0: leaves the file"),
        (48, b"\x08", "section info 0: has another size"),
    ],
)
def test_what_is_wrong_is_named(
    where: int, value: bytes, words: str, program: Path, tmp_path: Path
) -> None:
    data = bytearray(build(gpt2()))
    data[where : where + len(value)] = value
    (tmp_path / "text.bin").write_bytes(data)
    with pytest.raises(RuntimeError, match=words):
        NativeTokenizer(program, tmp_path / "text.bin").encode(["a"])
    with pytest.raises(RuntimeError, match="cannot be opened"):
        NativeTokenizer(program, tmp_path / "missing.bin").encode(["a"])
