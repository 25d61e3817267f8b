"""Files that were cut or flipped: errors that name the place, and never wrong rows."""

import os

import msgspec
import numpy as np
import pytest

from lcc.errors import ArchiveError
from lcc.runtime.archive.block_file import BlockFile
from lcc.runtime.archive.headers import Page


def read_all(archive) -> dict[int, list]:
    """All columns of all blocks."""
    return {
        block: [archive.column(block, column.name).tolist() for column in archive.layout.columns]
        for block in archive.blocks
    }


def used_bytes(book) -> list[int]:
    """Offsets in a block of what is no padding."""
    sizes = [np.prod([book.rows if size == "rows" else size for size in column.shape])
             * np.dtype(column.dtype).itemsize for column in book.columns]  # fmt: skip
    spans = [range(offset, offset + size) for offset, size in zip(book.offsets, sizes, strict=True)]
    return [*range(64), *(byte for span in spans for byte in span)]


@pytest.fixture
def quick(monkeypatch):
    """No waiting for the disk when an archive is closed."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_a_file_cut_anywhere_opens_with_its_whole_blocks(book, quick):
    with book.open() as archive:
        book.fill(archive, range(3))
    whole = book.path.read_bytes()
    for size in range(len(whole) + 1):
        if size % 4096 > 330 and size % 61:  # in padding: some of it
            continue
        book.rewrite(0, whole)
        os.truncate(book.path, size)
        if 0 < size < book.header_bytes:
            with pytest.raises(ArchiveError, match=r"book.lccarchive: ends in its header"):
                book.open()
            assert book.path.read_bytes() == whole[:size]
            continue
        blocks = max(0, size - book.header_bytes) // book.block_bytes
        with book.open() as archive:
            book.check_all(archive, range(blocks))
            partly = size % 4096 != 0
            assert (archive.dropped is not None) == partly
        assert book.path.stat().st_size == book.header_bytes + blocks * book.block_bytes


def test_a_cut_full_file(book):
    """Blocks 2, 3, 4 in slots 2, 0, 1: cutting the file takes the oldest ones."""
    with book.open(3) as archive:
        book.fill(archive, range(5))
    os.truncate(book.path, book.place(3) - 1)
    with book.open() as archive:
        book.check_all(archive, range(3, 5))
        assert archive.dropped == (
            "blocks that were not whole were dropped; blocks 3 .. 4 are here"
        )
        book.fill(archive, range(5, 9))
        book.check_all(archive, range(6, 9))


@pytest.mark.parametrize("slots", [None, 3])
def test_a_flipped_byte_is_found(book, slots, quick):
    """In the header, the file is refused; in the ends, blocks are dropped; elsewhere, named."""
    with book.open(slots) as archive:
        book.fill(archive, range(4))
        wanted, blocks = read_all(archive), archive.blocks
    whole = book.path.read_bytes()
    text = len(msgspec.json.encode(Page("f" * 64, book.columns, book.rows, slots)))
    in_header = {*range(44), *range(64, 64 + text)} - {20, 21, 22, 23}
    used, found = set(used_bytes(book)), set()
    for at in range(len(whole)):
        slot, offset = divmod(at - book.header_bytes, book.block_bytes)
        padding = at not in in_header if slot < 0 else offset not in used
        if padding and at % 61:
            continue
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        book.rewrite(0, flipped)
        error = ""
        try:
            with book.open() as archive:
                got = read_all(archive)
                assert got == {block: wanted[block] for block in archive.blocks}
                assert archive.blocks in (blocks, blocks[1:], blocks[:-1])
                assert (archive.dropped is None) == (got == wanted) == padding
                if archive.dropped:
                    found.add("dropped")
                    assert slot in (archive.blocks.stop % 3, 3)
        except ArchiveError as raised:
            error = str(raised)
        if error:
            found.add("header" if slot < 0 else "block")
            assert not padding
            assert error.startswith(f"{book.path}: ")
            assert "begin anew" in error or at < 8
            assert (
                slot < 0 or f"block {next(b for b in blocks if b % (slots or 9) == slot)}" in error
            )
    assert found == {"dropped", "header", "block"}


def test_a_damaged_column_is_named_each_time(book):
    with book.open() as archive:
        book.fill(archive, range(3))
    book.rewrite(book.place(1, book.offsets[2] + 5), b"\xff")
    words = r"book.lccarchive: block 1, column scale is damaged \(crc32 \w{8}, not \w{8}\); delete"
    with book.open() as archive:
        for _ in range(2):
            with pytest.raises(ArchiveError, match=words):
                archive.column(1, "scale")
            assert archive.column(1, "key").tolist() == book.arrays(1)["key"].tolist()
        book.check(archive, 0, 0)
        archive.truncate(1)
        book.fill(archive, range(1, 3))
        book.check_all(archive, range(3))


def test_a_header_that_changes_while_the_file_is_open(book):
    with book.open() as archive:
        book.fill(archive, range(3))
    with book.open() as archive:
        for slot, header in ((0, b"\0"), (1, book.path.read_bytes()[book.place(2) :][:64])):
            book.rewrite(book.place(slot), header)
            with pytest.raises(ArchiveError, match=f"header of block {slot} is damaged; delete"):
                archive.column(slot, "key")
        book.check(archive, 2, 2)


def test_without_power_the_newest_blocks_may_lack_parts(book):
    with book.open() as archive:
        book.fill(archive, range(6))
    book.rewrite(book.place(5, book.offsets[1]), bytes(8))
    book.rewrite(book.place(4, book.offsets[3]), bytes(8))
    with book.open() as archive:
        book.check_all(archive, range(4))
        assert archive.dropped == "blocks that were not whole were dropped; blocks 0 .. 3 are here"
    with book.open() as archive:
        assert archive.dropped is None


@pytest.mark.parametrize("slots", [None, 4])
def test_without_power_headers_may_be_missing(book, slots):
    """A header that was never written is zero: what follows it is dropped."""
    with book.open(slots) as archive:
        book.fill(archive, range(4))
    book.rewrite(book.place(2), bytes(64))
    with book.open() as archive:
        book.check_all(archive, range(2))
        assert archive.dropped
    with book.open() as archive:
        assert archive.dropped is None
        book.fill(archive, range(2, 7))
        book.check_all(archive, range(3 if slots else 0, 7))


@pytest.fixture(params=[8, 9])
def gap(book, request) -> int:
    """Blocks 6 .. 10 of 5 slots, but one of them was not written over the one before."""
    gap, before = request.param, b""
    with book.open(5) as archive:
        book.fill(archive, range(gap))
        before = book.path.read_bytes()
        book.fill(archive, range(gap, 11))
    old = before[book.place(gap % 5) : book.place(gap % 5 + 1)]
    assert any(old)
    book.rewrite(book.place(gap % 5), old)
    return gap


def test_without_power_a_full_file_has_headers_of_before(book, gap):
    for again in (False, True):
        with book.open() as archive:
            book.check_all(archive, range(6, gap))
            assert (archive.dropped is None) == again
    with book.open() as archive:
        archive.append(4, book.arrays(gap))
    with book.open() as archive:  # the blocks that were dropped do not follow this one
        book.check_all(archive, range(6, gap + 1))


def test_opening_that_is_killed_finds_the_same_again(book, gap, monkeypatch):
    """However many headers it has cleared before."""
    damaged = book.path.read_bytes()
    clear, numbers = BlockFile.clear, []
    for most in range(9):
        book.rewrite(0, damaged)
        left = iter(range(most))
        with monkeypatch.context() as patch:
            patch.setattr(BlockFile, "clear", lambda *it, left=left: (next(left), clear(*it)))
            try:
                book.open().close()
            except StopIteration:
                numbers.append(most)
        with book.open() as archive:
            book.check_all(archive, range(6, gap))
    assert numbers == list(range(11 - gap))  # one of before, and those behind the gap


def test_without_power_the_oldest_block_may_be_half_overwritten(book):
    with book.open(3) as archive:
        book.fill(archive, range(5))
    book.rewrite(book.place(2, book.offsets[0]), bytes(8))
    with book.open() as archive:
        book.check_all(archive, range(3, 5))
        assert archive.dropped
        book.fill(archive, range(5, 7))
        book.check_all(archive, range(4, 7))


def test_numbers_go_on_where_no_block_is_whole(book):
    with book.open(3) as archive:
        book.fill(archive, range(5))
    for slot in range(3):
        book.rewrite(book.place(slot, book.offsets[0]), bytes(8))
    for _ in range(2):
        with book.open() as archive:
            book.check_all(archive, range(2, 2))
            assert archive.lost == 8
