"""Tables against the tokenizer that they were made from, on text that tries every rule."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from lcc.sources.text_tables import code_points
from lcc.sources.text_tables.interpret import Interpreter
from lcc.sources.text_tables.unfit import Unfit

SEED = 20261
DRAWN = 150  # texts of drawn parts
MOST_ADDED = 64  # added tokens that are tried in texts
CHUNK = 64  # ids that are decoded at once

WRITTEN = (
    "",
    " ",
    "The quick brown fox jumps over the lazy dog. It's 12,345.678 km; they'll see we've won!",
    "I'M HE'LL WE'D YOU'RE 'S 't 'RE x'ſ don’t DON'T o'clock rock'n'roll 'lls 'mm",
    "  leading, trailing   \t\t mixed \n\n\n lines \r\n\r\n ends\r\r\n  ",
    "\t\v\f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u180e\u200b\ufeff end",
    "\x00\x01\x07\x08\x1b[0m\x1c\x1d\x1e\x1f\x7f\x80\x9f\xad",
    "def f(x: int) -> None:\n    if x >= 10 and x != 0x1F:\n\t\treturn {'a': [1, 2.5e-3]}  # !?\n",
    '#include <a.h>\n//**//  int main(){for(;;)++i;}\n\n\n<div class="x">&nbsp;</div>/* ... */',
    "https://example.org/a_b-c?d=e%20f&g=1#h  C:\\dir\\file.txt  a@b.c  $1,000.00 €5 £3 ¥9 50%",
    "1 12 123 1234 12345 123456 1234567 ٠١٢٣٤٥ ०१२३ Ⅷ ½ ² ₃ ① 一二三 1.000.000,00 3.14159",
    "Ünïcödé çà et là, naïve café, Straße, smørrebrød, Łódź, İstanbul, ΑΒΓ αβγ, Привет, мир!",
    "e\u0301a\u0323\u0307 A\u030a \u0344 \u1e9b\u0323 q\u0307\u0323 ﬁ ﬃ ﬅ ℌ Ω K Å ﷺ ㎏ ½ ｱｶﾞ",
    "中文没有空格。日本語のテキスト、カタカナとひらがな！한국어 문장. ᄀ\u1161\u11a8 각 가\u11a8",
    "שלום עולם مرحبا بالعالم สวัสดีชาวโลก नमस्ते दुनिया বাংলা தமிழ் ខ្មែរ မြန်မာ ქართული հայերեն አማርኛ",
    "😀👩🏽‍💻👨‍👩‍👧‍👦🏳️‍🌈🇩🇪1️⃣ ✔️ ∑∫√≈≠≤ ←↑→ ♠♥ ░▒▓ ∀x∈ℝ ⟨ψ|φ⟩ 𝒜𝔅𝕮 𐐷 𠀀 \U0010ffff \U000e0001",
    "\ufffd\ufffd a\ufffdb \ufffe \uffff \ue000 \u0378 \U0001fae8 \u1c8a \ua7dc \U00010d4a",
    "▁▁a▁ ▁b <0x0A> <0xFF> Ġ Ċ ÿ Ā ı ĳ <unk> </s> [INST] <|x|> <|>|> <| <",
    "a" * 120 + "B" * 70,
    " " * 130 + "x" + " " * 65,
    "\n" * 90 + "\r\n" * 20 + "\t" * 30,
    "1" * 100 + "!" * 80 + "中" * 60 + "." * 50 + "-" * 100 + "=" * 33,
    "a" + "\u0301" * 40 + "\u0323\u0301" * 10 + "한" * 30 + "\u1161" * 10,
)
_LETTERS = (
    "aAbesStTdDlLmMrRvVzZ '’\"\t\n\r 019٣Ⅷ½.,!?-_/\\|<>()[]{}#$%&*+=@^`~éßſKǅʰªº中あア한\u0301"
    "\u0323\u0308\u093e\u200d\u00a0\u3000\u2028\x85\x00😀🏽\U00010400▁Ġ\ufffd "
)


def check(backend: Any, data: bytes, template: str) -> None:
    """Compare tables with the tokenizer that they were made from.

    Args:
        backend: the library's tokenizer, without truncation and padding.
        data: what `build` made of it.
        template: as given to `build`.

    Raises:
        Unfit: the first text, or ids, for which they differ.
    """
    tables = Interpreter(data)
    added = backend.get_added_tokens_decoder()
    texts = [*WRITTEN, *_around(added), *_drawn(backend, added)]
    texts += _all_kinds() if tables.knows_kinds else ()
    plain = _plain_reading(backend, template)
    for text, encoding in zip(texts, _encoded(backend, texts), strict=True):
        ids = encoding.ids
        _same(ids, tables.encode(text), text, "")
        for special in (False, True):
            shown = backend.decode(ids, skip_special_tokens=not special)
            _same(shown, tables.decode(ids, special=special), ids, "decoding ")
    few = [*WRITTEN, *_around(added)]
    for text in few:
        _same(plain(text), tables.read_plain(text), text, "reading as plain text ")
    _check_ids(backend, tables)


def _encoded(backend: Any, texts: Sequence[str]) -> Any:
    return backend.encode_batch_fast(texts, add_special_tokens=False)


def _same(wanted: Any, got: Any, what: Any, how: str) -> None:
    if wanted != got:
        place = next(
            (i for i, pair in enumerate(zip(wanted, got, strict=False)) if pair[0] != pair[1]), -1
        )
        raise Unfit(
            f"the tables differ from the tokenizer library {how}{what!r:.200}: place {place}, "
            f"got {got[place : place + 3]!r}, wanted {wanted[place : place + 3]!r}"
        )


def _check_ids(backend: Any, tables: Interpreter) -> None:
    """Decode every id, in order and drawn."""
    size = max([backend.get_vocab_size() - 1, *backend.get_added_tokens_decoder()]) + 1
    numbers = random.Random(SEED)
    chunks = [list(range(i, min(i + CHUNK, size))) for i in range(0, size, CHUNK)]
    chunks += [[int(numbers.random() * size) for _ in range(CHUNK)] for _ in range(40)]
    wanted = backend.decode_batch(chunks, skip_special_tokens=False)
    for ids, text in zip(chunks, wanted, strict=True):
        _same(text, tables.decode(ids, special=True), ids, "decoding ")


def _all_kinds() -> Iterator[str]:
    """Texts of characters of every kind, as the library's version of Unicode has them."""
    letters = "".join(map(chr, code_points.borders()))
    for i in range(0, len(letters), 100):
        yield letters[i : i + 100]


def _around(added: dict[int, Any]) -> Iterator[str]:
    """Added tokens inside of texts and of words, side by side, cut, and in white space."""
    contents = [each.content for _, each in sorted(added.items())]
    if len(contents) > MOST_ADDED:
        step = len(contents) / MOST_ADDED
        contents = [contents[int(i * step)] for i in range(MOST_ADDED)]
    for i, content in enumerate(contents):
        other = contents[i - 1]
        yield f"a {content} b{content}c{content}{other}  {content}\n{content[:-1]} {content[1:]}"
    yield "".join(contents[:8])


def _drawn(backend: Any, added: dict[int, Any]) -> Iterator[str]:
    """Texts of letters, runs, words of the vocabulary and added tokens, always the same ones."""
    numbers = random.Random(SEED)
    size = backend.get_vocab_size(with_added_tokens=False)
    contents = [each.content for _, each in sorted(added.items())] or ["<s>"]

    def one_of(some: Sequence[Any]) -> Any:
        return some[int(numbers.random() * len(some))]

    for _ in range(DRAWN):
        parts = list[str]()
        for _ in range(1 + int(numbers.random() * 24)):
            kind = numbers.random()
            if kind < 0.6:
                parts.append(one_of(_LETTERS))
            elif kind < 0.75:
                parts.append(one_of(_LETTERS) * (2 + int(numbers.random() * 20)))
            elif kind < 0.95:
                parts.append(backend.decode([int(numbers.random() * size)]))
            else:
                parts.append(one_of(contents))
        yield "".join(parts)


def _plain_reading(backend: Any, template: str) -> Any:
    """How the Python runtime reads a text whose control tokens are plain text."""
    from lcc.runtime.text.literal import MARKED, Literals, Speller

    literals = Literals(backend.get_added_tokens_decoder().values(), template)
    speller = Speller(backend)

    def read(text: str) -> list[int]:
        marked, ids, place = literals.mark(text), list[int](), 0
        for match in [*MARKED.finditer(marked), None]:
            stretch = marked[place : match.start() if match else len(marked)]
            if stretch:
                ids += backend.encode(stretch, add_special_tokens=False).ids
            if match is not None:
                ids += speller.encode(match[1])
                place = match.end()
        return ids

    return read
