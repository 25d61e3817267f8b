import subprocess
import sys

import numpy as np
import pytest

from lcc.errors import ArchiveError, ConfigError
from lcc.runtime.archive import Archive, Column, Layout


def test_what_is_appended_is_read(book):
    with book.open() as archive:
        assert (archive.blocks, archive.length, archive.dropped) == (range(0), 0, None)
        for block, count in enumerate([4, 1, 3]):
            assert archive.append(count, book.arrays(block, count)) == block
        before = archive.file_bytes
        for block, count in enumerate([4, 1, 3]):
            book.check(archive, block, block, count)
    with book.open() as archive:
        assert (archive.blocks, archive.length, archive.lost) == (range(3), 8, 0)
        assert [archive.first_row(block) for block in range(4)] == [0, 4, 5, 8]
        for block, count in enumerate([4, 1, 3]):
            book.check(archive, block, block, count)
        assert archive.dropped is None
        assert archive.append(2, book.arrays(3, 2)) == 3
        book.check(archive, 3, 3, 2)
    assert before == book.header_bytes + 3 * book.block_bytes == book.path.stat().st_size - 4096


def test_columns_are_aligned_and_read_only(book):
    with book.open() as archive:
        book.fill(archive, range(3))
        for column in book.columns:
            array = archive.column(2, column.name)
            assert array.ctypes.data % 64 == 0
            assert array.flags.c_contiguous
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_arrays_of_several_blocks_at_once(book):
    with book.open() as archive:
        book.fill(archive, range(3))
        views = [archive.column(block, "key") for block in range(3)]
        book.fill(archive, range(3, 5))
        for block, view in enumerate(views):
            assert view.tolist() == book.arrays(block)["key"].tolist()
        archive.close()


def test_arrays_of_more_rows_and_of_any_strides(book):
    wide = {
        name: np.concatenate([array, array], axis=0 if name == "position" else 1)
        for name, array in book.arrays(0).items()
        if name != "scale"  # of a whole block
    }
    wide["scale"] = book.arrays(0)["scale"]
    backwards = {name: np.asfortranarray(array) for name, array in wide.items()}
    with book.open() as archive:
        archive.append(4, wide)
        archive.append(4, backwards)
        for block in archive.blocks:
            book.check(archive, block, 0)


def test_layout_by_hand(book):
    """The offsets that docs/format.md gives, for the columns of these tests."""
    layout = Layout(book.columns, book.rows)
    assert layout.block_header_bytes == 64
    assert layout.offsets == (*book.offsets, 4096)
    assert layout.bytes_per_row == 1024
    large = Layout((Column("a", "float32", (3, "rows", 64)), Column("b", "int8", ("rows",))), 100)
    assert large.offsets == (64, 64 + 76_800, 77_824)
    assert large.bytes_per_row == 779


@pytest.mark.parametrize("slots", [2, 3, 5])
def test_full_file_overwrites_its_oldest_block(book, slots):
    for end in range(1, 13):
        with book.open(slots) as archive:
            book.fill(archive, range(end - 1, end))
            book.check_all(archive, range(max(0, end - slots), end))
            assert archive.dropped is None
        assert book.path.stat().st_size == 4096 * (1 + min(end, slots))


@pytest.mark.parametrize("slots", [None, 3, 4])
@pytest.mark.parametrize("again", [False, True])
def test_truncate_drops_the_end(book, slots, again):
    """Every length, then every number of blocks dropped, then more blocks than before."""
    for end in range(9):
        for keep in range(max(0, end - (slots or end)), end + 1):
            book.path.unlink(missing_ok=True)
            archive = book.open(slots)
            book.fill(archive, range(end))
            first = archive.blocks.start
            archive.truncate(keep)
            book.check_all(archive, range(first, keep))
            if again:
                archive.close()
                archive = book.open(slots)
                assert archive.dropped is None
            book.check_all(archive, range(first, keep))
            book.fill(archive, range(keep, end + 2))
            book.check_all(archive, range(max(first, end + 2 - (slots or 99)), end + 2))
            archive.close()
            assert book.path.stat().st_size <= 4096 * (1 + min(end + 2, slots or 99))


def test_truncate_refuses_what_is_not_there(book):
    with book.open(3) as archive:
        book.fill(archive, range(5))
        with pytest.raises(ArchiveError, match=r"block 1 was overwritten .*; blocks 2 .. 4 are"):
            archive.truncate(1)
        with pytest.raises(ConfigError, match=r"no block 6; blocks 2 .. 4 are here"):
            archive.truncate(6)
        book.check_all(archive, range(2, 5))


@pytest.mark.parametrize("slots", [None, 3])
def test_clear_begins_anew(book, slots):
    for again in (False, True):
        with book.open(slots) as archive:
            book.fill(archive, range(7))
            archive.clear()
            book.check_all(archive, range(0))
            assert archive.file_bytes == book.header_bytes
            if again:
                book.fill(archive, range(2))
        with book.open(slots) as archive:
            book.check_all(archive, range(2 if again else 0))
            archive.clear()


def test_clear_after_all_was_dropped(book):
    """What the header says of the first block counts when there is none."""
    with book.open(3) as archive:
        book.fill(archive, range(7))
        archive.truncate(4)
        book.check_all(archive, range(4, 4))
    with book.open() as archive:
        book.check_all(archive, range(4, 4))
        archive.clear()
    with book.open() as archive:
        book.check_all(archive, range(0))
        book.fill(archive, range(5))
        book.check_all(archive, range(2, 5))


def test_what_a_session_appended_it_does_not_check(book, monkeypatch):
    with book.open() as archive:
        book.fill(archive, range(2))
        monkeypatch.setattr("lcc.runtime.archive.block_file.zlib.crc32", None)
        book.check_all(archive, range(2))


@pytest.mark.parametrize("slots", [None, 3])
def test_arrays_in_use_are_not_cut_off(book, slots):
    """Reading behind the end of a file ends the process: what is dropped stays where it is read."""
    with book.open(slots) as archive:
        book.fill(archive, range(3))
        view = archive.column(2, "key")
        archive.truncate(1)
        assert view.tolist() == book.arrays(2)["key"].tolist()
        archive.clear()
        assert view.tolist() == book.arrays(2)["key"].tolist()
        book.check_all(archive, range(0))
    with pytest.raises(ArchiveError, match="another session has it open, or arrays of it in use"):
        book.open()
    assert view.tolist() == book.arrays(2)["key"].tolist()
    del view
    with book.open(slots) as archive:
        book.check_all(archive, range(0))
        assert archive.file_bytes == book.header_bytes


def test_one_session_at_a_time(book):
    code = "import sys; from pathlib import Path; from lcc.runtime.archive.locked_file import *\n"
    code += "try: LockedFile(Path(sys.argv[1]))\nexcept ArchiveError as error: print(error)"
    command = [sys.executable, "-c", code, str(book.path)]
    with book.open() as archive:
        book.fill(archive, range(2))
        with pytest.raises(ArchiveError, match=r"book.lccarchive: another session has it open, "):
            book.open()
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        assert result.stdout.startswith("another session has it open")
        book.check_all(archive, range(2))
    book.open().close()


def test_of_another_artifact_or_other_rows(book):
    with book.open() as archive:
        book.fill(archive, range(2))
    before = book.path.read_bytes()
    key, *others = book.columns
    refused = {
        r"of another artifact \(fingerprint f{12}, this one has e{12}\)": {"fingerprint": "e" * 64},
        r"keeps key in float16, wanted float32; open it with the dtype": {
            "columns": (Column("key", "float32", key.shape), *others)
        },
        r"of other columns \(more: None, wanted ": {
            "columns": (*book.columns, Column("more", "int8", ("rows",)))
        },
        r"of other columns \(their order": {"columns": book.columns[::-1]},
        "of blocks of 4 rows, wanted 5; ": {"rows": 5},
        "made with no limit, wanted 7 blocks; ": {"slots": 7},
    }
    for words, other in refused.items():
        with pytest.raises(ArchiveError, match=f"book.lccarchive: {words}"):
            book.open(**other)
        assert book.path.read_bytes() == before
    with book.open() as archive:
        book.check_all(archive, range(2))


def test_limit_stays_where_none_is_given(book):
    book.open(3).close()
    with book.open() as archive:
        book.fill(archive, range(5))
        book.check_all(archive, range(2, 5))
    with pytest.raises(ArchiveError, match="made with a limit of 3 blocks, wanted 4 blocks"):
        book.open(4)


def test_limit_needs_room_for_two_blocks(book):
    with pytest.raises(ConfigError, match="limit_bytes is 12287; wanted at least 12288: a header"):
        book.open(limit_bytes=3 * 4096 - 1)
    assert not book.path.exists()


def test_columns_that_cannot_be(book):
    for columns in (
        (),
        (Column("a", "int8", ("rows",)),) * 2,
        (Column("a", "int8", ("rows", "rows")),),
        (Column("a", "int8", (0,)),),
        (Column("a", "int8", ("rows", 0)),),
        (Column("a", "uint8", ("rows",)),),
    ):
        with pytest.raises(ConfigError, match=r"^.*(columns are|column a is)"):
            book.open(columns=columns)
    with pytest.raises(ConfigError, match="rows is 0, wanted 1 or more"):
        book.open(rows=0)


def test_arrays_that_are_not_those_of_the_columns(book):
    good = book.arrays(0)
    with book.open() as archive:
        for count, arrays, words in (
            (0, good, "0 rows, wanted 1 .. 4"),
            (5, good, "5 rows, wanted 1 .. 4"),
            (4, {"key": good["key"]}, "columns position, scale, value are missing or unknown"),
            (4, good | {"more": good["key"]}, "columns more are missing or unknown"),
            (4, book.arrays(0, 3), r"column key is float16 \[2, 3, 3\], wanted float16 \[2, "),
            (4, good | {"key": good["key"].astype("float32")}, "column key is float32"),
            (4, good | {"scale": good["scale"].T}, r"column scale is float32 \[4, 2\], wanted"),
        ):
            with pytest.raises(ConfigError, match=f"book.lccarchive: {words}"):
                archive.append(count, arrays)
        assert archive.file_bytes == book.header_bytes
        book.fill(archive, range(1))
        for block, name in ((1, "key"), (-1, "key"), (0, "keys")):
            with pytest.raises(ConfigError, match=r"book.lccarchive: no (block|column) "):
                archive.column(block, name)


def test_places_where_no_archive_can_be(book, tmp_path):
    for path, words in (
        (tmp_path, "not a file; give the path of an archive"),
        (tmp_path / "none" / "a", "no folder .*none; make it first"),
    ):
        with pytest.raises(ArchiveError, match=words):
            Archive.open(path, "f", book.columns, 4)
