"""Files that are no archives of lcc, or were made to do harm: one error each."""

import os
import struct
import zlib

import msgspec
import pytest

from lcc.errors import ArchiveError
from lcc.runtime.archive.headers import BlockHeader, Page, encode_block_header, encode_file_header
from lcc.runtime.archive.layout import Layout


def test_files_of_others(book):
    for content, words in (
        (b"x", "not an archive; give the path of one, or of a new file"),
        (b"PK\3\4" + bytes(9000), "not an archive; "),
        (bytes(9000), "not an archive; "),
        (b"lcc-rows\2" + bytes(9000), "version 2, this lcc reads version 1; delete it"),
        (b"lcc-rows\1\0\0\0\xff\xff\xff\xff" + bytes(9000), "header of 4294967295 bytes, at most"),
        (b"lcc-rows\1\0\0\0\xff\xff\0\0" + bytes(9000), r"ends in its header \(9016 bytes of"),
    ):
        book.path.write_bytes(content)
        with pytest.raises(ArchiveError, match=f"book.lccarchive: {words}"):
            book.open()
        assert book.path.read_bytes() == content


def headed(text: bytes, tail: bytes = b"") -> bytes:
    """A file whose header is whole and has this page."""
    numbers = struct.pack("<8sIIIIQQI", b"lcc-rows", 1, len(text), zlib.crc32(text), 0, 0, 0,
                          zlib.crc32(bytes(16))).ljust(64, b"\0")  # fmt: skip
    return (numbers + text).ljust(-(-(64 + len(text)) // 4096) * 4096, b"\0") + tail


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"[" * 100_000, "header is damaged"),
        (b"{}", "header is damaged .*missing required field"),
        (b"\xff", "header is damaged"),
        (b'{"fingerprint":"f","columns":[],"rows":1,"more":1}', "header is damaged .*more"),
        (b'{"fingerprint":"f","columns":[],"rows":1e400}', "header is damaged"),
        (b'{"fingerprint":"f","columns":[],"rows":1}', "of another artifact"),
    ],
)
def test_pages_that_cannot_be(book, page, words):
    book.path.write_bytes(headed(page))
    with pytest.raises(ArchiveError, match=f"book.lccarchive: {words}"):
        book.open()


@pytest.mark.parametrize("slots", [0, -3, 1, 1 << 62, 1 << 70])
def test_slots_that_cannot_be(book, slots):
    page = msgspec.to_builtins(Page("f" * 64, book.columns, book.rows)) | {"slots": slots}
    book.path.write_bytes(headed(msgspec.json.encode(page, order="sorted")))
    with pytest.raises(ArchiveError, match=r"book.lccarchive: header is damaged"):
        book.open()


def test_blocks_that_cannot_be(book):
    """Whole headers and checksums of numbers that would overflow, or do not fit each other."""
    layout = Layout(book.columns, book.rows)
    header = encode_file_header(Page("f" * 64, book.columns, book.rows, 2))
    sizes = [layout.column_bytes(column) for column in layout.columns]
    crcs = [zlib.crc32(bytes(size)) for size in sizes]

    def file(*blocks):
        written = [encode_block_header(layout, each, crcs).ljust(4096, b"\0") for each in blocks]
        return header + b"".join(written)

    for bad in (
        BlockHeader(2, 4, 0),
        BlockHeader(2, 4, 5),
        BlockHeader(2, 9, 4),
        BlockHeader(3, 4, 4),
        BlockHeader(2**63, 4, 4),
    ):
        book.path.write_bytes(file(bad, BlockHeader(1, 0, 4)))
        with book.open() as archive:
            assert (archive.blocks, archive.lost) == (range(1, 2), 0), bad
            assert archive.dropped
    book.path.write_bytes(file(BlockHeader(2, 4, 4), BlockHeader(1, 1, 4)))
    with pytest.raises(ArchiveError, match="block 2 begins at row 4, wanted row 5; delete"):
        book.open()


def test_a_file_that_others_cut_is_not_mapped_behind_its_end(book):
    with book.open() as archive:
        book.fill(archive, range(3))
        os.truncate(book.path, book.place(2, 300))
        with pytest.raises(ArchiveError, match=r"book.lccarchive: was cut to 12588 bytes while"):
            archive.column(2, "key")
        book.check(archive, 1, 1)
