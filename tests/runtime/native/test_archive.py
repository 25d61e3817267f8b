"""Archives of the native runtime: the same files as Python's, and safe with damaged ones."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from lcc.errors import ArchiveError
from lcc.testing.native_archive import (
    CAPACITY,
    COLUMNS,
    COUNTS,
    DTYPES,
    FINGERPRINT,
    Native,
    Refused,
    append,
    drawn,
    fill,
    limit_of,
    python,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocks", [0, 5])
def test_the_same_rows_give_the_same_bytes(
    native: Native, tmp_path: Path, dtype: str, blocks: int
) -> None:
    """After each append, after rows were taken back, and after the file was begun anew."""
    one, other = tmp_path / "one", tmp_path / "other"
    limit = limit_of(dtype, blocks, tmp_path) if blocks else 0
    native.open(one, dtype, limit)
    archive, held = python(other, dtype, limit or None), 0
    for seed, count in enumerate([*COUNTS, 256, 40]):
        rows = drawn(seed, count)
        now = append(archive, rows, held)
        assert native.append(rows, held) == now
        assert one.read_bytes() == other.read_bytes()
        held = now
    assert (archive.archive.lost > 0) == (blocks > 0)
    before = int(archive.archive.first_row(archive.archive.blocks[-2]) - archive.archive.lost)
    rows = drawn(9, 7)
    assert native.append(rows, before) == append(archive, rows, before) == before + 7
    assert one.read_bytes() == other.read_bytes()
    assert native.append(rows, 0) == append(archive, rows, 0) == 7
    assert one.read_bytes() == other.read_bytes()
    archive.clear()
    native("clear")
    assert one.read_bytes() == other.read_bytes()
    native.append(rows, 0)
    append(archive, rows, 0)
    archive.close()
    native("close")
    assert one.read_bytes() == other.read_bytes()
    assert native.end() == ""


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_read_as_python_reads_them(native: Native, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "rows"
    total = fill(native, path, dtype)
    order = np.random.default_rng(0).integers(0, total, 200)
    archive, wanted = python(path, dtype), {}
    for column in COLUMNS:
        for first, count in ((0, total), (90, 300), (total - 1, 1)):
            out = np.zeros((count, *column.shape), column.dtype)
            archive.read(column.name, first, out)
            wanted[column.name, first] = out
        out = np.zeros((len(order), *column.shape), column.dtype)
        archive.take(column.name, order, out)
        wanted[column.name, "taken"] = out
    marks = [archive.mark(held) for held in (0, 1, 128, 500, total)]
    archive.close()
    native.open(path, dtype)
    for (name, first), out in wanted.items():
        got = native.take(name, order.tolist()) if first == "taken" else None
        got = native.read(name, int(first), len(out)) if got is None else got
        assert got.tobytes() == out.tobytes(), (name, first)
    assert [native("mark", held) for held in (0, 1, 128, 500, total)] == [
        f"{rows} {check}" for rows, check in marks
    ]
    for words in (("read", "key_0", total - 1, 2, "out"), ("take", "key_0", "out", total)):
        with pytest.raises(Refused, match="of 662"):
            native(*words)


def test_files_of_others_are_refused_as_in_python(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    fill(native, path)
    whole = path.read_bytes()

    def page(change) -> bytes:
        """The file with another page, whose checksum is right."""
        length = struct.unpack_from("<I", whole, 12)[0]
        text = change(whole[64 : 64 + length])
        head = bytearray(whole[:4096])
        head[12:20] = struct.pack("<II", len(text), zlib.crc32(text))
        return bytes(head[:64]) + text + bytes(4096 - 64 - len(text)) + whole[4096:]

    both = {
        "another artifact": page(lambda t: t.replace(b"f" * 64, b"a" * 64)),
        "of other columns (key_0": page(lambda t: t.replace(b'"key_0"', b'"key_9"')),
        "of blocks of 64 rows": page(lambda t: t.replace(b'"rows":128', b'"rows":64')),
        "keeps key_0 in float32, wanted float16": page(
            lambda t: t.replace(b"float16", b"float32", 1)
        ),
        "version 2, this lcc reads version 1": whole[:8] + b"\2" + whole[9:],
        "not an archive": b"something else",
        "ends in its header, at byte 20": whole[:20],
        "ends in its header (100 bytes": whole[:100],
        "header is damaged (first block)": whole[:24] + b"\1" + whole[25:],
    }
    for words, data in both.items():
        path.write_bytes(data)
        with pytest.raises(Refused) as refused:
            native.open(path)
        assert words in str(refused.value)
        path.write_bytes(data)
        with pytest.raises(ArchiveError) as raised:
            python(path)
        if "columns" not in words:  # which are shown in the words of the language
            assert str(refused.value) == f"4 {raised.value}"
    here = {
        "header is damaged (page has a field x": lambda t: t[:-1] + b',"x":1}',
        "header is damaged (written by no lcc)": lambda t: t.replace(b",", b", ", 1),
        "header is damaged (rows or slots": lambda t: t[:-1] + b',"slots":1}',
        "has room for 128 rows, wanted 256": lambda t: t[:-1] + b',"slots":2}',
    }
    for words, change in here.items():
        path.write_bytes(page(change))
        native("manifest", FINGERPRINT, 257 if "room" in words else CAPACITY)
        with pytest.raises(Refused) as refused:
            native.open(path)
        assert words.replace("128 rows, wanted 256", "256 rows, wanted 257") in str(refused.value)
    for where, words in ((tmp_path, "not a file"), (tmp_path / "no" / "rows", "no folder")):
        with pytest.raises(Refused, match=words):
            native.open(where)


def test_options_that_cannot_be(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with pytest.raises(Refused, match='1 archive dtype is "float8", wanted one of float16'):
        native.open(path, "float8")
    with pytest.raises(
        Refused, match=r"1 archive limit is 5000 bytes, wanted [0-9]+ or more: a re"
    ):
        native.open(path, "float16", 5000)
    assert not path.exists()
    limit = limit_of("float16", 6, tmp_path)
    fill(native, path, "float16", limit)
    block = limit_of("float16", 7, tmp_path) - limit
    with pytest.raises(Refused, match="made with a limit of 6 blocks, wanted 7 blocks; leave the"):
        native.open(path, "float16", limit + block)
    native.open(path, "float16")
    native("close")


def test_one_session_at_a_time(native: Native, archive_program: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    words = "another session has it open"
    native.open(path)
    with pytest.raises(ArchiveError, match=words):
        python(path)
    other = Native(archive_program, tmp_path)
    with pytest.raises(Refused, match=f"4 {path}: {words}"):
        other.open(path)
    native("close")
    with python(path).archive, pytest.raises(Refused, match=words):
        other.open(path)
    other.open(path)
    other.end()


def test_a_full_disk_stops_the_archive(native: Native, tmp_path: Path) -> None:
    """It is said once; what was there before can be read, and a new beginning goes on."""
    path = tmp_path / "rows"
    native.open(path)
    rows = drawn(0, 200)
    native.append(rows, 0)
    before = path.read_bytes()
    block = (len(before) - 4096) // 2
    native("largest", len(before) + block + 100)  # there is room for the first one of two
    assert native.append(rows, 200) == native.append(rows, 200) == 200
    assert path.read_bytes() == before
    said = f"file too large (wanted {block} bytes for block 2); archiving stops"
    assert said in native("state")
    assert native.read("position", 0, 200).tolist() == rows["position"].tolist()
    native("clear")
    assert native("state") == "4096 new "
    assert native.append(rows, 0) == 200
    assert native.end().count(f"2 {path}: {said}") == 1


def test_rows_of_another_text(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    total = fill(native, path)
    native.open(path)
    with pytest.raises(Refused, match="holds 662 tokens of another text; load the state that was"):
        native("new")
    mark = native("mark", total).split()
    with pytest.raises(Refused, match="is not the archive that the state was saved with"):
        native("back", mark[0], int(mark[1]) + 1)
    with pytest.raises(Refused, match=r"row 699 is not there, of the 662 that were written"):
        native("back", 700, mark[1])
    assert native("back", *mark) == str(total)
    native("new")
    with pytest.raises(Refused, match="no block begins with row 7"):
        native("begin", 1, 7)
