"""The parts of `text.bin`, by number; docs/format.md says what is in each."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

MAGIC, VERSION = b"lcc-text", 1
ALIGN = 64
HEADER, ENTRY = struct.Struct("<8sIIQQ"), struct.Struct("<IIQQ")
NONE = 0xFFFFFFFF


class Kind(IntEnum):
    """What a section holds."""

    INFO = 1
    OFFSETS = 2
    BYTES = 3
    FLAGS = 4
    WORDS = 5
    PAIRS = 6
    UNITS = 7
    JOINS = 8
    STEPS = 9
    STRINGS = 10
    CLASS_PAGES = 11
    CLASS_BLOCKS = 12
    TRANSITIONS = 13
    FORM_HEAD = 14
    FORM_PAGES = 15
    FORM_BLOCKS = 16
    FORM_RECORDS = 17
    FORM_LETTERS = 18
    FORM_PAIRS = 19
    TRIE_ROOT = 20
    TRIE_NODES = 21
    TRIE_EDGES = 22
    ADDED = 23
    SORT_PAGES = 24
    SORT_BLOCKS = 25


class Flag(IntEnum):
    """Bits of a token's flags."""

    PRESENT = 1
    WORD = 2  # a piece that is its bytes is this token
    BYTE = 4  # one byte, where letters have no token
    ADDED = 8
    SPECIAL = 16


class Info(IntEnum):
    """Numbers of the section INFO, by place."""

    IDS = 0
    MODEL = 1  # bits, see Model
    UNKNOWN = 2
    NORMALIZER_STEPS = 3
    STEPS = 4
    AUTOMATA = 5
    FORMS = 6
    ADDED = 7
    LONGEST = 8  # bytes of a word
    DECODING = 9  # bits, see Decode
    STRIP = 10
    SHOWN_FROM = 11  # offset and size of strings
    SHOWN_FROM_SIZE = 12
    SHOWN_AS = 13
    SHOWN_AS_SIZE = 14


class Model(IntEnum):
    """Bits of INFO[MODEL]."""

    IN_BYTES = 1
    BYTE_FALLBACK = 2
    FUSE_UNKNOWN = 4
    CUTS = 8  # pieces may be cut where no pair of units is in JOINS
    IGNORE_MERGES = 16  # a word is its token even where merges do not lead to it


class Decode(IntEnum):
    """Bits of INFO[DECODING]."""

    IN_BYTES = 1
    DROP_FIRST = 2


class Op(IntEnum):
    """Steps before merging."""

    FORM = 1
    REPLACE = 2
    REPLACE_BYTE = 3
    PREFIX = 4
    STRIP = 5
    SPLIT = 6


Sections = Mapping[tuple[Kind, int], bytes]


def file_bytes(sections: Sections) -> bytes:
    """The file: a header, where each section lies, the sections."""
    entries, parts = list[bytes](), list[bytes]()
    place = _aligned(HEADER.size + ENTRY.size * len(sections))
    for (kind, index), content in sorted(sections.items()):
        entries.append(ENTRY.pack(kind, index, place, len(content)))
        parts.append(content + bytes(_aligned(len(content)) - len(content)))
        place += len(parts[-1])
    head = HEADER.pack(MAGIC, VERSION, len(sections), place, 0) + b"".join(entries)
    return head + bytes(_aligned(len(head)) - len(head)) + b"".join(parts)


def read_sections(data: bytes) -> dict[tuple[Kind, int], bytes]:
    """The sections of a file that `file_bytes` wrote."""
    magic, version, count, size, _ = HEADER.unpack_from(data)
    assert (magic, version, size) == (MAGIC, VERSION, len(data))
    found = {}
    for i in range(count):
        kind, index, place, length = ENTRY.unpack_from(data, HEADER.size + ENTRY.size * i)
        found[Kind(kind), index] = data[place : place + length]
    return found


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
