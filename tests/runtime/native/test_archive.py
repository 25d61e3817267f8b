"""Archives of the native runtime: the same files as Python's, and safe with damaged ones."""

import random
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lcc.errors import ArchiveError
from lcc.testing.native_archive import (
    CAPACITY,
    COLUMNS,
    FINGERPRINT,
    Native,
    Refused,
    append,
    drawn,
    python,
)

DTYPES = ("float16", "float32", "int8")
COUNTS = (100, 128, 300, 5, 129)


@pytest.fixture
def archive_program(native_build: Path) -> Path:
    """Of runtime/native/tests."""
    return native_build / "archive_rows"


@pytest.fixture
def native(archive_program: Path, tmp_path: Path) -> Iterator[Native]:
    made = Native(archive_program, tmp_path)
    yield made
    made.process.kill()
    made.process.communicate()


def limit_of(dtype: str, blocks: int, folder: Path) -> int:
    """Bytes of a file with room for so many blocks."""
    with python(folder / "sized", dtype).archive as archive:
        return archive.file_bytes + blocks * archive.layout.block_bytes


def fill(native: Native, path: Path, dtype: str = "float16", limit: int = 0) -> int:
    """An archive with rows of these counts, each drawn by its number; it is closed."""
    native.open(path, dtype, limit)
    held = 0
    for seed, count in enumerate(COUNTS):
        held = native.append(drawn(seed, count), held)
    native("close")
    return held


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


def test_a_writer_that_is_killed_leaves_what_was_whole(native: Native, tmp_path: Path) -> None:
    """In the middle of a block: what Python opens then, and what opens here."""
    path = tmp_path / "rows"
    native.open(path)
    rows = drawn(1, 200)
    native.append(rows, 0)
    native.append(rows, 200)
    whole = path.read_bytes()
    native("begin", 60, 400)
    (tmp_path / "keys").write_bytes(rows["key_0"][:60].tobytes())
    native("put", "key_0", 60, "keys")
    native.process.kill()
    native.process.communicate()
    torn = path.read_bytes()
    assert len(torn) > len(whole)
    again = Native(native.program, tmp_path)
    again.open(path)
    assert again.read("key_0", 0, 400).shape == (400, 2, 5)
    again("close")
    assert "blocks that were not whole were dropped; blocks 0 .. 3 are here" in again.end()
    assert path.read_bytes() == whole
    path.write_bytes(torn)
    archive = python(path).archive
    assert archive.dropped == "blocks that were not whole were dropped; blocks 0 .. 3 are here"
    archive.close()
    assert path.read_bytes() == whole


def test_writers_that_are_killed_anywhere(
    archive_program: Path, native: Native, tmp_path: Path
) -> None:
    path, chance = tmp_path / "rows", random.Random(0)
    limit = limit_of("int8", 5, tmp_path)
    for kill in range(6):
        writer = Native(archive_program, tmp_path)
        writer.open(path, "int8", limit)
        writer("clear")
        (tmp_path / "rows_in").write_bytes(
            b"".join(drawn(kill, 256)[column.name].tobytes() for column in COLUMNS)
        )
        assert writer.process.stdin is not None
        try:
            writer.process.stdin.write("append 256 9999999 rows_in\n" * 200)
            writer.process.stdin.flush()
        except BrokenPipeError:
            pass
        writer.process.stdout.read(chance.randrange(40, 400))
        writer.process.kill()
        writer.process.communicate()
        torn = path.read_bytes()
        with python(path, "int8").archive as archive:
            length, lost = archive.length, archive.lost
        cleaned = path.read_bytes()
        path.write_bytes(torn)
        native.open(path, "int8")
        wanted = np.arange(256)[np.arange(lost, lost + length) % 256] + 1000 * kill
        assert (native.read("position", 0, length) == wanted).all()
        native("close")
        assert path.read_bytes() == cleaned


def test_a_byte_that_changed_is_found_and_named(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    total = fill(native, path)
    with python(path).archive as archive:
        layout, header = archive.layout, archive.file_bytes % archive.layout.block_bytes
        last = archive.blocks[-1]
    whole = path.read_bytes()

    def changed(block: int, offset: int) -> None:
        data = bytearray(whole)
        data[header + block * layout.block_bytes + offset] ^= 4
        path.write_bytes(data)

    changed(1, layout.offsets[1] + 700)
    native.open(path)
    native.read("value_0", 0, 100)
    native.read("key_0", 0, total)
    for _ in range(2):
        with pytest.raises(Refused, match=r"rows: block 1, column value_0 is damaged \(crc32 "):
            native.read("value_0", 0, total)
    native("close")
    changed(1, 20)
    with pytest.raises(Refused, match=r"4 .*rows: header of block 1 is damaged; delete the file"):
        native.open(path)
    changed(last, layout.offsets[1])
    native.open(path)
    native.read("key_0", 0, total - 1)
    with pytest.raises(Refused, match="of 661"):
        native.read("key_0", 0, total)
    native("close")
    assert "dropped" in native.end()


def outcome(open_one, path: Path) -> str:
    """How opening ends: its error, or the bytes of the repaired file."""
    try:
        open_one()
    except (Refused, ArchiveError) as error:
        return re.sub(r"^4 ", "", str(error))
    return str(zlib.crc32(path.read_bytes()))


@pytest.mark.parametrize("blocks", [0, 5])
def test_damaged_files_end_as_in_python(native: Native, tmp_path: Path, blocks: int) -> None:
    """Bytes changed, blocks cleared or exchanged, files cut: the same error or repair."""
    path, chance = tmp_path / "rows", random.Random(blocks)
    fill(native, path, "int8", limit_of("int8", blocks, tmp_path) if blocks else 0)
    whole = path.read_bytes()
    with python(path, "int8").archive as archive:
        size, header = archive.layout.block_bytes, archive.file_bytes % archive.layout.block_bytes
    slots = (len(whole) - header) // size
    seen = set()
    for turn in range(120):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 3)):
            kind, slot = turn % 6, chance.randrange(slots)
            place = header + slot * size
            if kind == 0:
                data[chance.randrange(800)] ^= 1 << chance.randrange(8)
            elif kind == 1:
                data[place + chance.randrange(64)] ^= 1 << chance.randrange(8)
            elif kind == 2:
                data[place : place + 64] = bytes(64)
            elif kind == 3:
                data = data[: chance.randrange(len(data) + 1)] or bytearray(b"lcc")
                break
            elif kind == 4:
                data[place + chance.randrange(64, size)] ^= 1 << chance.randrange(8)
            else:
                other = header + chance.randrange(slots) * size
                data[place : place + size] = data[other : other + size]
        results = []
        for open_one in (
            lambda: python(path, "int8").close(),
            lambda: (native.open(path, "int8"), native("close")),
        ):
            path.write_bytes(data)
            results.append(outcome(open_one, path))
        assert results[0] == results[1], (turn, turn % 6)
        seen.add(results[0].split(": ", 1)[-1][:12])
    assert len(seen) > 12


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
    native("largest", len(before) + 5000)
    assert native.append(rows, 200) == native.append(rows, 200) == 200
    assert path.read_bytes() == before
    said = f"file too large (wanted {(len(before) - 4096) // 2} bytes for block 2); archiving stops"
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
