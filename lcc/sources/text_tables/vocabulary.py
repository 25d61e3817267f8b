"""Tokens, words, merges and units as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lcc.sources.text_tables import hashing
from lcc.sources.text_tables.described import Described
from lcc.sources.text_tables.layout import NONE, Flag, Kind
from lcc.sources.text_tables.unfit import Unfit

Tables = dict[tuple[Kind, int], bytes]
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
_OTHER = sorted(set(range(256)) - set(_PRINTED))
BYTE_OF = {chr(i): i for i in _PRINTED} | {chr(256 + n): i for n, i in enumerate(_OTHER)}
"""Letter of a byte-level vocabulary -> byte."""
_SHORTEST = {f"<0x{i:02X}>": i for i in range(256)}


@dataclass(frozen=True)
class Words:
    """Tokens by id.

    contents    bytes of each token: of the text that it stands for, or, where letters are merged,
                as the vocabulary spells it
    flags       of each, see `Flag`
    """

    contents: list[bytes]
    flags: list[int]


def words_of(
    described: Described, merged: Callable[[str], list[int]], shown: Callable[[int], str]
) -> Words:
    """All tokens.

    merged  ids of a token's own text
    shown   what an added token is decoded to: it may be its content behind the normalizer
    """
    size = 1 + max([*described.vocabulary.values(), *(each.id for each in described.added)])
    words = Words([b""] * size, [0] * size)
    shown_as_bytes = described.decoding.byte_fallback
    fallback = set(byte_tokens(described).values()) if shown_as_bytes else set()
    for token, i in described.vocabulary.items():
        if words.flags[i]:
            raise Unfit(f"two tokens have id {i}")
        flags = Flag.PRESENT | (Flag.BYTE if i in fallback else 0)
        content = _bytes_of(token) if described.in_bytes else token.encode()
        if content is None:  # merging never leads to it
            content = token.encode()
        elif token and (described.ignore_merges or merged(token) == [i]):
            flags |= Flag.WORD
        words.contents[i], words.flags[i] = content, flags
    for each in described.added:
        text = shown(each.id)
        own = _bytes_of(text) if described.decoding.in_bytes else None
        content = text.encode() if own is None else own
        if words.flags[each.id] and words.contents[each.id] != content:
            raise Unfit(f"added token {each.content!r} has the id of another token")
        words.contents[each.id] = content
        words.flags[each.id] |= Flag.PRESENT | Flag.ADDED | (Flag.SPECIAL if each.special else 0)
    return words


def _bytes_of(token: str) -> bytes | None:
    """The bytes of a byte-level token; None = it has another letter."""
    found = [BYTE_OF.get(letter) for letter in token]
    return None if None in found else bytes(found)  # type: ignore[arg-type]


def byte_tokens(described: Described) -> dict[int, int]:
    """Byte -> token, where letters without a token become bytes."""
    if not (described.byte_fallback or described.decoding.byte_fallback):
        return {}
    found = {_SHORTEST[token]: i for token, i in described.vocabulary.items() if token in _SHORTEST}
    if found and len(found) < 256:
        missing = min(set(range(256)) - set(found))
        raise Unfit(f"byte fall-back lacks the token <0x{missing:02X}>")
    return found


def word_tables(words: Words) -> Tables:
    """Contents, flags, and a hash table of the words."""
    lengths = [len(each) for each in words.contents]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32)
    ids = [i for i, flags in enumerate(words.flags) if flags & Flag.WORD]
    contents = [words.contents[i] for i in ids]
    if len(set(contents)) < len(contents):
        raise Unfit("two tokens have the same bytes")
    slots = hashing.slots_for(len(ids))
    table = hashing.placed(hashing.hash_words(contents), slots)
    numbers = np.array([*ids, NONE], np.uint32)[table]
    return {
        (Kind.OFFSETS, 0): offsets.tobytes(),
        (Kind.BYTES, 0): b"".join(words.contents),
        (Kind.FLAGS, 0): np.array(words.flags, np.uint8).tobytes(),
        (Kind.WORDS, 0): numbers.tobytes(),
    }


def merge_tables(described: Described) -> Tables:
    """Pairs of tokens with their rank and what they become; what a byte is; where cuts are safe.

    Raises:
        Unfit: a merge names a token that is not in the vocabulary.
    """
    rows = _merge_rows(described)
    slots = hashing.slots_for(len(rows))
    table = hashing.placed(hashing.hash_pairs(rows[:, 0], rows[:, 1]), slots)
    empty = np.array([[NONE, NONE, NONE, NONE]], np.uint32)
    pairs = np.concatenate([rows, empty])[table]
    units = np.full(256, NONE, np.uint32)
    if described.in_bytes:
        for token, i in described.vocabulary.items():
            if len(token) == 1 and token in BYTE_OF:
                units[BYTE_OF[token]] = i
    elif described.byte_fallback:
        for byte, i in byte_tokens(described).items():
            units[byte] = i
    tables = {(Kind.PAIRS, 0): pairs.tobytes(), (Kind.UNITS, 0): units.tobytes()}
    if cuts(described):
        tables[Kind.JOINS, 0] = _joins(described, rows)
    return tables


def cuts(described: Described) -> bool:
    """Whether pieces may be cut between letters that no merge joins.

    Where letters are merged a piece may be a whole book. Words that are looked up before merging
    must stay whole, and so must unknown letters, which melt into one token.
    """
    return not described.in_bytes and not described.ignore_merges


def _merge_rows(described: Described) -> np.ndarray:
    vocabulary, rows = described.vocabulary, dict[tuple[int, int], tuple[int, int]]()
    for rank, (left, right) in enumerate(described.merges):
        try:
            pair = vocabulary[left], vocabulary[right]
            new = vocabulary[left + right]
        except KeyError as error:
            raise Unfit(f"merge {left!r} {right!r} needs {error}, no token") from None
        rows[pair] = rank, new  # of two that are alike, the last one counts
    both = [(*pair, *what) for pair, what in rows.items()]
    return np.array(both, np.uint32).reshape(-1, 4)


def _joins(described: Described, rows: np.ndarray) -> bytes:
    """A hash table of the pairs of units that stand side by side inside some token."""
    last, first = _edges(described.vocabulary)
    found = np.unique(np.stack([last[rows[:, 0]], first[rows[:, 1]]], axis=1), axis=0)
    found = found[(found != NONE).all(axis=1)]
    table = hashing.placed(
        hashing.hash_pairs(found[:, 0], found[:, 1]), hashing.slots_for(len(found))
    )
    return np.concatenate([found, np.array([[NONE, NONE]], np.uint32)])[table].tobytes()


def _edges(vocabulary: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each token, the unit that it ends with and the one that it begins with."""
    size = 1 + max(vocabulary.values())
    last, first = np.full(size, NONE, np.uint32), np.full(size, NONE, np.uint32)
    for token, i in vocabulary.items():
        if token in _SHORTEST:
            last[i] = first[i] = i
        elif token:
            last[i], first[i] = vocabulary.get(token[-1], NONE), vocabulary.get(token[0], NONE)
    return last, first
