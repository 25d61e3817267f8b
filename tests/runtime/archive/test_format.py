"""The bytes of docs/format.md, written and read here without lcc.runtime.archive."""

import json
import struct
import zlib

import numpy as np
import pytest


def up(size: int, multiple: int) -> int:
    while size % multiple:
        size += 1
    return size


def header_by_hand(book, slots) -> bytes:
    columns = [
        {"dtype": column.dtype, "name": column.name, "shape": list(column.shape)}
        for column in book.columns
    ]
    page = {"columns": columns, "fingerprint": "f" * 64, "rows": book.rows}
    page |= {} if slots is None else {"slots": slots}
    text = json.dumps(page, sort_keys=True, separators=(",", ":")).encode()
    header = b"lcc-rows" + struct.pack("<III", 1, len(text), zlib.crc32(text)) + bytes(4)
    header += struct.pack("<QQI", 0, 0, zlib.crc32(bytes(16))) + bytes(20) + text
    return header + bytes(up(len(header), 4096) - len(header))


def block_by_hand(book, number: int, first_row: int, count: int) -> bytes:
    body, crcs = b"", b""
    for column in book.columns:
        shape = [book.rows if size == "rows" else size for size in column.shape]
        array = np.zeros(shape, column.dtype)
        for row in range(count):
            place = [row if size == "rows" else slice(None) for size in column.shape]
            array[tuple(place)] = book.arrays(number, count)[column.name][tuple(place)]
        crcs += struct.pack("<I", zlib.crc32(array.tobytes()))
        body += array.tobytes()
        body += bytes(up(len(body), 64) - len(body))
    rest = struct.pack("<IQQ", count, number, first_row) + crcs
    rest += bytes(up(12 + len(rest), 64) - 12 - len(rest))
    block = b"lcc-blok" + struct.pack("<I", zlib.crc32(rest)) + rest + body
    return block + bytes(up(len(block), 4096) - len(block))


@pytest.mark.parametrize("slots", [None, 3])
def test_bytes_are_those_of_the_page(book, slots):
    counts, first_rows = [4, 2, 1, 4, 3], [0, 4, 6, 7, 11]
    blocks = [block_by_hand(book, n, first_rows[n], counts[n]) for n in range(5)]
    placed = blocks if slots is None else [blocks[3], blocks[4], blocks[2]]
    whole = header_by_hand(book, slots) + b"".join(placed)
    with book.open(slots) as archive:
        for number, count in enumerate(counts):
            archive.append(count, book.arrays(number, count))
    assert book.path.read_bytes() == whole
    book.path.write_bytes(whole)
    with book.open() as archive:
        assert archive.blocks == range(0 if slots is None else 2, 5)
        assert (archive.lost, archive.length) == ((0, 14) if slots is None else (6, 8))
        for number in archive.blocks:
            book.check(archive, number, number, counts[number])
