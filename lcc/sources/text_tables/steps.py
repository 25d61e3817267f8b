"""Normalizers and pre-tokenizers as a list of steps, each of which is a table walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lcc.sources.text_tables.page import Page
from lcc.sources.text_tables.unfit import Unfit

MARK = "\u2581"  # what SentencePiece writes for a space
BEHAVIOURS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
ALWAYS, UNLESS_THERE, FIRST_UNLESS_THERE = 0, 1, 2  # when a prefix is put in front
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS = r"\P{=Whitespace}+|[\p{=Whitespace}&&[^\p{=WhitespaceSplit}]]+"
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclass(frozen=True)
class Form:
    """Letters and their accents in a normal form of Unicode, or in lower case."""

    name: str


@dataclass(frozen=True)
class Replace:
    """Each match of a pattern becomes a text; `literal`: the pattern is a text, too."""

    pattern: str
    content: str
    literal: bool


@dataclass(frozen=True)
class Prefix:
    """A text in front of each piece that is not empty: ALWAYS, or with a condition."""

    content: str
    when: int


@dataclass(frozen=True)
class Strip:
    """White space at the ends of a piece goes."""

    left: bool
    right: bool


@dataclass(frozen=True)
class Split:
    """Pieces at the matches of a pattern; `invert`: matches and what is between swap roles."""

    pattern: str
    behaviour: str
    invert: bool = False


Step = Form | Replace | Prefix | Strip | Split


def normalizer_steps(value: Any, where: str = "normalizer") -> list[Step]:
    """What is done to a text between added tokens.

    Raises:
        Unfit: names a kind of normalizer, or a field, that the tables have no place for.
    """
    if value is None:
        return []
    page = Page(value, where)
    kind = page.take("type", str)
    steps = list[Step]()
    if kind == "Sequence":
        for i, each in enumerate(page.take("normalizers", list)):
            steps += normalizer_steps(each, f"{where} {i}")
    elif kind in FORMS or kind == "Lowercase":
        steps.append(Form(kind))
    elif kind == "Prepend":
        steps.append(Prefix(page.take("prepend", str), ALWAYS))
    elif kind == "Replace":
        pattern, literal = _pattern(page)
        steps.append(Replace(pattern, page.take("content", str), literal))
    elif kind == "Strip":
        steps.append(Strip(page.take("strip_left", bool), page.take("strip_right", bool)))
    else:
        raise Unfit(f"{where} is of type {kind}, which the tables have no place for")
    page.done()
    return steps


def pre_tokenizer_steps(value: Any, where: str = "pre_tokenizer") -> tuple[list[Step], bool]:
    """How a text is cut before merging, and whether bytes, not letters, are merged.

    Raises:
        Unfit: names a kind of pre-tokenizer, or a field, that the tables have no place for.
    """
    if value is None:
        return [], False
    page = Page(value, where)
    kind = page.take("type", str)
    steps, in_bytes = list[Step](), False
    if kind == "Sequence":
        for i, each in enumerate(page.take("pretokenizers", list)):
            if in_bytes:
                raise Unfit(f"{where}: ByteLevel is not the last one")
            more, in_bytes = pre_tokenizer_steps(each, f"{where} {i}")
            steps += more
    elif kind == "ByteLevel":
        in_bytes = True
        page.skip("trim_offsets")
        if page.take("add_prefix_space", bool):
            steps.append(Prefix(" ", UNLESS_THERE))
        if page.take("use_regex", bool, True):
            steps.append(Split(GPT2, "Isolated"))
    elif kind == "Metaspace":
        steps += _metaspace(page)
    else:
        steps.append(_split(kind, page, where))
    page.done()
    return steps, in_bytes


def _metaspace(page: Page) -> list[Step]:
    mark = page.take("replacement", str)
    schemes = {"always": UNLESS_THERE, "first": FIRST_UNLESS_THERE, "never": None}
    scheme = page.take("prepend_scheme", str, "always")
    if scheme not in schemes:
        raise Unfit(f"{page.where}: prepend_scheme is {scheme!r}")
    steps: list[Step] = [Replace(" ", mark, literal=True)]
    when = schemes[scheme]
    if when is not None:
        steps.append(Prefix(mark, when))
    if page.take("split", bool, True):
        steps.append(Split(escaped(mark), "MergedWithNext"))
    return steps


def _split(kind: str, page: Page, where: str) -> Split:
    if kind == "Split":
        pattern, literal = _pattern(page)
        behaviour = page.take("behavior", str)
        if behaviour not in BEHAVIOURS:
            raise Unfit(f"{where}: behavior is {behaviour!r}")
        invert = page.take("invert", bool, False)
        return Split(escaped(pattern) if literal else pattern, behaviour, invert)
    if kind == "Digits":
        single = page.take("individual_digits", bool)
        return Split(r"\p{=Digits}", "Isolated" if single else "Contiguous")
    if kind == "CharDelimiterSplit":
        return Split(escaped(page.take("delimiter", str)), "Removed")
    if kind == "WhitespaceSplit":
        return Split(r"\p{=WhitespaceSplit}", "Removed")
    if kind == "Whitespace":
        return Split(WORDS, "Removed", invert=True)
    if kind == "Punctuation":
        behaviour = page.take("behavior", str, "Isolated")
        return Split(r"\p{=Punctuation}", behaviour)
    raise Unfit(f"{where} is of type {kind}, which the tables have no place for")


def _pattern(page: Page) -> tuple[str, bool]:
    """A pattern, and whether it is a text."""
    inner = Page(page.take("pattern", dict), f"{page.where}: pattern")
    text = inner.take("String", str, None)
    pattern = text if text is not None else inner.take("Regex", str)
    inner.done()
    if not pattern:
        raise Unfit(f"{page.where}: the pattern is empty")
    return pattern, text is not None


def escaped(text: str) -> str:
    """A text as a pattern that matches only it."""
    return "".join(f"\\x{{{ord(letter):x}}}" for letter in text)
