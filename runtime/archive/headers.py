"""The headers of an archive, as bytes: one of the file, and one of each block. Little-endian.

file     0  magic "lcc-rows" | 8  version | 12  bytes of the page | 16  crc32 of the page
        24  number of the first block, 32  of its first row, 40  crc32 of these two: what
            they are while the file holds no block
        64  the page, JSON | zeros up to a multiple of 4096
block    0  magic "lcc-blok" | 8  crc32 of all behind it in this header | 12  rows in use
        16  number of the block | 24  of its first row
        32  crc32 of each column's array | zeros up to a multiple of 64
"""

import struct
import zlib
from typing import Annotated, NamedTuple

import msgspec

from lcc.errors import ArchiveError
from lcc.runtime.archive.layout import PAGE, Column, Layout, padded

VERSION = 1
LARGEST_PAGE = 1 << 20  # bytes; a model of 1,000 layers needs a fifth of it
LARGEST_NUMBER = 1 << 62  # of blocks and rows: sums of two of them still fit 64 bits
PAGE_AT, START_AT, CHECKED_FROM, CRCS_AT = 64, 24, 12, 32
_FILE = struct.Struct("<8sIII")
_START = struct.Struct("<QQ")
_BLOCK = struct.Struct("<8sIIQQ")
_CRC = struct.Struct("<I")
_FILE_MAGIC, _BLOCK_MAGIC = b"lcc-rows", b"lcc-blok"


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a file says of itself.

    fingerprint     of the artifact that its rows belong to
    columns, rows   of its blocks, see Layout
    slots           most blocks that it holds, then the oldest is overwritten; None = no limit
    """

    fingerprint: str
    columns: tuple[Column, ...]
    rows: int
    slots: Annotated[int, msgspec.Meta(ge=2, lt=LARGEST_NUMBER)] | None = None


class BlockHeader(NamedTuple):
    """What a block says of itself, besides the checksums of its columns.

    rows        in use
    """

    number: int
    first_row: int
    rows: int


def encode_file_header(page: Page) -> bytes:
    """The header of a file that holds no block and never held one."""
    text = msgspec.json.encode(page, order="sorted")
    start = _FILE.pack(_FILE_MAGIC, VERSION, len(text), zlib.crc32(text)).ljust(START_AT, b"\0")
    header = (start + encode_start(0, 0)).ljust(PAGE_AT, b"\0") + text
    return header.ljust(padded(len(header), PAGE), b"\0")


def page_bytes(start: bytes) -> int:
    """How long the page is, from the first 64 bytes of a file.

    Raises:
        ArchiveError: it is no archive, or of another version.
    """
    if start[:8] != _FILE_MAGIC[: len(start)]:
        raise ArchiveError("not an archive; give the path of one, or of a new file")
    if len(start) < PAGE_AT:
        raise ArchiveError(f"ends in its header, at byte {len(start)}; delete it and begin anew")
    _, version, length, _ = _FILE.unpack_from(start)
    if version != VERSION:
        raise ArchiveError(
            f"version {version}, this lcc reads version {VERSION}; delete it and begin anew"
        )
    if length > LARGEST_PAGE:
        raise ArchiveError(
            f"header of {length} bytes, at most {LARGEST_PAGE} are read; delete it and begin anew"
        )
    return length


def decode_page(start: bytes, text: bytes) -> Page:
    """The page of a file, from its first 64 bytes and the text behind them.

    Raises:
        ArchiveError: it is damaged.
    """
    *_, length, crc = _FILE.unpack_from(start)
    if len(text) < length:
        got = f"{PAGE_AT + len(text)} bytes of {PAGE_AT + length}"
        raise ArchiveError(f"ends in its header ({got}); delete it and begin anew")
    try:
        if zlib.crc32(text) != crc:
            raise ValueError("crc32 differs")
        return msgspec.json.decode(text, type=Page)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ArchiveError(f"header is damaged ({error}); delete it and begin anew") from None


def encode_start(number: int, row: int) -> bytes:
    """The numbers of the next block and row while the file holds none, and their checksum."""
    numbers = _START.pack(number, row)
    return numbers + _CRC.pack(zlib.crc32(numbers))


def decode_start(start: bytes) -> tuple[int, int]:
    """What encode_start wrote, from the first 64 bytes of a file.

    Raises:
        ArchiveError: it is damaged.
    """
    numbers = _START.unpack_from(start, START_AT)
    if encode_start(*numbers) != start[START_AT : START_AT + 20] or max(numbers) > LARGEST_NUMBER:
        raise ArchiveError("header is damaged (first block); delete it and begin anew")
    return numbers


def encode_block_header(layout: Layout, block: BlockHeader, crcs: list[int]) -> bytes:
    """The header of a block, whose columns have these checksums."""
    start = _BLOCK.pack(_BLOCK_MAGIC, 0, block.rows, block.number, block.first_row)
    header = (start + b"".join(map(_CRC.pack, crcs))).ljust(layout.block_header_bytes, b"\0")
    crc = _CRC.pack(zlib.crc32(header[CHECKED_FROM:]))
    return header[: CHECKED_FROM - len(crc)] + crc + header[CHECKED_FROM:]


def decode_block_header(layout: Layout, header: bytes) -> BlockHeader | None:
    """What a block says of itself; None = these bytes are no whole header of one."""
    if len(header) < layout.block_header_bytes:
        return None
    magic, crc, rows, number, first_row = _BLOCK.unpack_from(header)
    whole = magic == _BLOCK_MAGIC and crc == zlib.crc32(header[CHECKED_FROM:])
    bounded = 0 < rows <= layout.rows and number < LARGEST_NUMBER
    if not whole or not bounded or first_row > number * layout.rows:
        return None
    return BlockHeader(number, first_row, rows)


def crc_of_column(header: bytes, index: int) -> int:
    """The checksum of one column, from the header of its block."""
    return _CRC.unpack_from(header, CRCS_AT + 4 * index)[0]
