"""Sentences to hide things in: noise that repeats, or the user's own text."""

import random
import re
import unicodedata
from pathlib import Path

from lcc.errors import LccError

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
LONGEST = 1000  # characters of a sentence
WIDE, CLOSING = "。！？", "”’」』）》"
_END = re.compile(rf"(?<=[.!?]) |(?<=[{WIDE}])(?![{WIDE}{CLOSING}]) ?")
_PIECE = re.compile(rf" ?(.{{1,{LONGEST}}}(?= |$)|.{{1,{LONGEST}}})")


def read_haystack(path: Path, pattern: str = "*.txt") -> list[str]:
    """Read a text file, or every file of a folder in the order of names, as sentences."""
    files = sorted(path.rglob(pattern)) if path.is_dir() else [path]
    text = " ".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    if not text.strip():
        raise LccError(f"{path}: no text found; wanted a text file, or a folder with {pattern}")
    return split_sentences(text)


def split_sentences(text: str) -> list[str]:
    """Split a text after every full stop, question or exclamation mark; line ends become spaces.

    What has none, such as a table or a log, is cut between words into pieces of `LONGEST`
    characters: a text of sentences comes as near to a length as its longest one allows.
    """
    sentences = _END.split(re.sub(r"\s+", " ", text).strip())
    return [piece for sentence in sentences for piece in _PIECE.findall(sentence)]


def joined(sentences: list[str]) -> str:
    """One text again: a space after each sentence, but for scripts that write without."""
    wide = [unicodedata.east_asian_width(each[-1]) in "WF" for each in sentences]
    return "".join(each + " " * (not w) for each, w in zip(sentences, wide, strict=True))


def from_anywhere(draw: random.Random, sentences: list[str]) -> list[str]:
    """The same sentences, from a drawn one on and around: every sample is a text of its own."""
    if not sentences:
        raise LccError("the task hides facts in sentences and has none; give --haystack")
    start = draw.randrange(len(sentences))
    return sentences[start:] + sentences[:start]
