"""Text that follows text: it has the ids that both have when they are tokenized at once.

A tokenizer treats the beginning of a text in its own way (a space in front, a word that could have
been one with the word before), so a piece tokenized by itself has other ids than it has inside the
whole. Here the end of what was read is tokenized along, and where the seam changes tokens that were
read, they are taken back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lcc.runtime.text.tokenizer import Tokenizer

CONTEXT = 1 << 11  # characters on either side of a seam that are looked at
TOKENS = 64  # newest ones that stand for a text that is not known

Parts = Iterator[tuple[list[int], int]]  # ids, and the characters that they complete


@dataclass(frozen=True)
class Passage:
    """The end of the text that a session holds.

    text    its last characters
    tokens  in the session when it was read: with more of them, or fewer, it is not the end
    """

    text: str
    tokens: int


@dataclass(frozen=True)
class Following:
    """How a text goes on from another one.

    drop    tokens of the first text to take back
    parts   ids to read then, each with the characters of the second text read so far
    """

    drop: int
    parts: Parts


def following(
    tokenizer: Tokenizer, before: str, text: str, held: Sequence[int], *, rewindable: int
) -> Following:
    """The ids of `text` behind `before`.

    Args:
        tokenizer: Of the model.
        before: The end of what was read; "" = nothing, or not known.
        text: What is to be read.
        held: The newest ids of the session, which end with those of `before`.
        rewindable: How many of them can be taken back.
    """
    head = before[-CONTEXT:]
    if not head:
        return Following(0, tokenizer.parts(text))
    old, new = tokenizer.encode(head), tokenizer.encode(head + text[:CONTEXT])
    same = common(old, new)
    drop = len(old) - same
    if drop > rewindable or list(held[len(held) - drop :]) != old[same:]:
        drop, same = 0, _behind_all(tokenizer, old, new, same)
    parts = tokenizer.parts(head + text, skip=same)
    return Following(drop, ((ids, max(0, end - len(head))) for ids, end in parts))


def _behind_all(tokenizer: Tokenizer, old: list[int], new: list[int], same: int) -> int:
    """The first token of `new`, behind the `same` ones, that shows nothing of what `old` says."""
    size = len(tokenizer.decode(old, special=True))
    while same < len(new):
        shown = tokenizer.decode(new[:same], special=True)
        if len(shown) >= size and not shown.endswith("\ufffd"):  # a part of a character
            break
        same += 1
    return same


def behind(tokenizer: Tokenizer, text: str, place: int) -> list[int] | None:
    """The ids of `text` from a character on; None = a token lies on both sides of it."""
    begin = max(0, place - CONTEXT)
    ids, before = tokenizer.encode(text[begin:]), tokenizer.encode(text[begin:place])
    return ids[len(before) :] if ids[: len(before)] == before else None


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
