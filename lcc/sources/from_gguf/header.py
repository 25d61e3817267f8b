"""The header of one GGUF file: metadata, and where each tensor lies; nothing in it is trusted."""

from __future__ import annotations

import struct
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from lcc.errors import ModelError

VERSIONS = (2, 3)
# Kinds of values of fixed size, as struct writes them; 8 is a string and 9 an array.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4


class Stored(NamedTuple):
    """Where a tensor lies.

    shape   rows first, as PyTorch counts
    kind    number of its ggml type
    start   byte of the file where its data begins
    size    bytes
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    path: Path
    start: int
    size: int


class _Cursor:
    """Reads a file forwards and stops at its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, path.stat().st_size
        self._file = path.open("rb")

    def close(self) -> None:
        self._file.close()

    @property
    def place(self) -> int:
        return self._file.tell()

    def take(self, count: int) -> bytes:
        if count > self.size - self.place:
            raise ModelError(
                f"{self.path}: truncated, its header needs {count:,} bytes at offset "
                f"{self.place:,} of {self.size:,}; download it again"
            )
        return self._file.read(count)

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        place, data = self.place, self.take(self.number("Q"))
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ModelError(f"{self.path}: the text at offset {place:,} is not UTF-8") from None


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Metadata by name, and the tensors by name, in the order of the file.

    Raises:
        ModelError: it is no GGUF file, is truncated, or its tensors overlap or leave the file.
    """
    cursor = _Cursor(path)
    try:
        tensors, fields = _counts(cursor)
        metadata = _metadata(cursor, fields)
        entries = [_entry(cursor) for _ in range(tensors)]
        place = cursor.place
    finally:
        cursor.close()
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ModelError(f"{path}: general.alignment is {alignment!r}, wanted a power of two")
    begin = (place + alignment - 1) // alignment * alignment
    return metadata, _placed(path, entries, begin, alignment, cursor.size)


def _counts(cursor: _Cursor) -> tuple[int, int]:
    if cursor.take(4) != b"GGUF":
        raise ModelError(f"{cursor.path}: not a GGUF file, it does not begin with 'GGUF'")
    version = cursor.number("I")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        kind = f"version {version}"
        if swapped in VERSIONS:
            kind = "written for big-endian machines"
        raise ModelError(f"{cursor.path}: {kind}; wanted a little-endian file of version 2 or 3")
    return cursor.number("Q"), cursor.number("Q")


def _metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text()
        if key in metadata:
            raise ModelError(f"{cursor.path}: the field {key} is there twice")
        metadata[key] = _value(cursor, cursor.number("I"), key)
    return metadata


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind in NUMBERS:
        return cursor.number(NUMBERS[kind])
    if kind == STRING:
        return cursor.text()
    if kind != ARRAY:
        raise ModelError(f"{cursor.path}: {key} has values of an unknown kind, {kind}")
    element, count = cursor.number("I"), cursor.number("Q")
    if element in NUMBERS:
        code = NUMBERS[element]
        data = cursor.take(count * struct.calcsize(f"<{code}"))
        return list(struct.unpack(f"<{count}{code}", data))
    if element != STRING:
        raise ModelError(f"{cursor.path}: {key} is a list of an unknown kind, {element}")
    return [cursor.text() for _ in range(count)]


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, kind, offset."""
    name, count = cursor.text(), cursor.number("I")
    if count > MOST_DIMENSIONS:
        raise ModelError(f"{cursor.path}: tensor {name} has {count} dimensions, wanted 4 or fewer")
    sizes = [cursor.number("Q") for _ in range(count)]
    return name, tuple(reversed(sizes)), cursor.number("I"), cursor.number("Q")


def _placed(
    path: Path,
    entries: list[tuple[str, tuple[int, ...], int, int]],
    begin: int,
    alignment: int,
    whole: int,
) -> dict[str, Stored]:
    """All tensors, each of which lies in the file and touches no other."""
    found: dict[str, Stored] = {}
    for name, shape, kind, offset in entries:
        size = _bytes(path, name, shape, kind)
        if name in found:
            raise ModelError(f"{path}: tensor {name} is there twice")
        if offset % alignment:
            raise ModelError(
                f"{path}: tensor {name} is at offset {offset:,}, wanted a multiple of {alignment}"
            )
        if begin + offset + size > whole:
            raise ModelError(
                f"{path}: truncated, tensor {name} ends at byte {begin + offset + size:,} of "
                f"{whole:,}; download it again"
            )
        found[name] = Stored(name, shape, kind, path, begin + offset, size)
    ordered = sorted((each for each in found.values() if each.size), key=lambda each: each.start)
    for before, after in pairwise(ordered):
        if before.start + before.size > after.start:
            raise ModelError(
                f"{path}: tensors {before.name} and {after.name} overlap; the file is damaged"
            )
    return found


def _bytes(path: Path, name: str, shape: tuple[int, ...], kind: int) -> int:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (KeyError, ValueError):
        raise ModelError(f"{path}: tensor {name} is of an unknown type, {kind}") from None
    row = shape[-1] if shape else 1
    if row % numbers:
        kind_name = GGMLQuantizationType(kind).name
        raise ModelError(
            f"{path}: tensor {name} has rows of {row}, wanted a multiple of {numbers} ({kind_name})"
        )
    return prod(shape) // numbers * size
