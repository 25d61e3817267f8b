"""Normal forms of Unicode, and lower case, as records of code points.

They are those of the tokenizer library, whose version of Unicode may be older than Python's: it is
asked for the form of every code point. What it cannot be asked for, the order in which marks
stand, is Python's where the library agrees.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcc.sources.text_tables import code_points as cp
from lcc.sources.text_tables.unfit import Unfit

MAP, DECOMPOSE, COMPOSE = 0, 1, 2
BOUNDARY, ALONE = 1, 2
HANGUL = range(0xAC00, 0xD7A4)
_JAMO_BEHIND = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
_OVERLAY = "\u0334"  # a mark that stands before all others


@dataclass(frozen=True)
class Record:
    """What becomes of a code point.

    order       where a mark stands among others; 0 = it is no mark
    boundary    what stands before it does not change with it
    alone       between two boundaries it stays as it is
    letters     what it is decomposed into
    """

    order: int
    boundary: bool
    alone: bool
    letters: str


@dataclass(frozen=True)
class Form:
    """Records of all code points that are not inert, and the pairs that are put together."""

    mode: int
    records: dict[int, Record]
    pairs: dict[tuple[int, int], int]


@functools.cache
def form_of(name: str) -> Form:
    """NFC, NFD, NFKC, NFKD or Lowercase.

    Raises:
        Unfit: the library knows marks that this Python does not know.
    """
    from tokenizers import normalizers

    if name == "Lowercase":
        lower = _each(normalizers.Lowercase(), _points())
        records = {
            ord(x): Record(0, True, False, y)
            for x, y in zip(_points(), lower, strict=True)
            if x != y
        }
        return Form(MAP, records, {})
    canonical = _each(normalizers.NFD(), _points())
    pairs = _pairs(_points(), canonical) if name in ("NFC", "NFKC") else {}
    seconds = {second for _, second in pairs}
    if pairs:
        seconds |= _JAMO_BEHIND
    whole = name.replace("C", "D")
    apart = canonical if whole == "NFD" else _each(getattr(normalizers, whole)(), _points())
    final = _each(getattr(normalizers, name)(), _points())
    orders = _orders(canonical)
    records = {}
    for letter, letters, form in zip(_points(), apart, final, strict=True):
        first = letters[0]
        record = Record(
            orders.get(letter, 0),
            not orders.get(first, 0) and ord(first) not in seconds,
            form == letter,
            letters,
        )
        if record != Record(0, True, True, letter):
            records[ord(letter)] = record
    return Form(COMPOSE if pairs else DECOMPOSE, records, pairs)


@functools.cache
def _points() -> Sequence[str]:
    """All code points that may have a form, but Hangul syllables, which follow a rule."""
    spans, _ = cp._categories()
    found = {low for low, high in spans if high == low + 1}
    found |= set(range(0xF900, 0xFB00)) | set(range(0x2F800, 0x2FA20))
    letters = [chr(i) for i in sorted(found - set(HANGUL) - {10} - set(range(0xD800, 0xE000)))]
    # What Python's version of Unicode has without a form has none in any other version.
    apart = {x: unicodedata.decomposition(x) for x in letters}
    seconds = {chr(int(text.split()[-1], 16)) for text in apart.values() if text}
    seconds |= set(map(chr, _JAMO_BEHIND))
    return [
        x
        for x in letters
        if apart[x]
        or x in seconds
        or unicodedata.combining(x)
        or unicodedata.category(x) == "Cn"
        or x.lower() != x
    ]


def _each(normalizer: Any, texts: Sequence[str]) -> list[str]:
    """The form of each text by itself: a line end keeps them apart."""
    found = normalizer.normalize_str("\n".join(texts)).split("\n")
    assert len(found) == len(texts)
    return list(found)


def _pairs(points: Sequence[str], apart: Sequence[str]) -> dict[tuple[int, int], int]:
    """Two code points that are put together, and what they become."""
    from tokenizers import normalizers

    compose = normalizers.NFC()
    wanted = [(x, y) for x, y in zip(points, apart, strict=True) if len(y) > 1]
    firsts = _each(compose, [y[:-1] for _, y in wanted])
    joined = _each(compose, [a + y[-1] for a, (_, y) in zip(firsts, wanted, strict=True)])
    return {
        (ord(a), ord(y[-1])): ord(x)
        for a, b, (x, y) in zip(firsts, joined, wanted, strict=True)
        if b == x and len(a) == 1
    }


def _orders(apart: Sequence[str]) -> dict[str, int]:
    """The class of each mark, as far as the library takes it for one."""
    from tokenizers import normalizers

    points = [x for x, y in zip(_points(), apart, strict=True) if x == y]
    moved = _each(normalizers.NFD(), [f"a{x}{_OVERLAY}" for x in points])
    found = {}
    for letter, text in zip(points, moved, strict=True):
        order = unicodedata.combining(letter)
        if text[1] == _OVERLAY and letter != _OVERLAY and order < 2:
            raise Unfit(
                f"the order of the mark U+{ord(letter):04X} is not known to this Python; wanted a "
                "newer one"
            )
        if order == 1 or (order and text[1] == _OVERLAY):
            found[letter] = order
    return found
