"""Archives that were killed, cut or changed: the native runtime does as Python does."""

import hashlib
import random
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from lcc.errors import ArchiveError
from lcc.testing.native_archive import (
    COLUMNS,
    Native,
    Refused,
    drawn,
    fill,
    limit_of,
    python,
)


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
    return hashlib.sha256(path.read_bytes()).hexdigest()  # a crc32 says nothing of what has one


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


@pytest.mark.parametrize("blocks", [0, 5])
def test_files_that_lost_everything_end_as_in_python(
    native: Native, tmp_path: Path, blocks: int
) -> None:
    """A column of every block is damaged, or a block begins with a row that another one has."""
    path = tmp_path / "rows"
    fill(native, path, "int8", limit_of("int8", blocks, tmp_path) if blocks else 0)
    whole = path.read_bytes()
    with python(path, "int8").archive as archive:
        size, header = archive.layout.block_bytes, archive.file_bytes % archive.layout.block_bytes
        length = archive.layout.block_header_bytes
    slots = range((len(whole) - header) // size)
    lost, moved = bytearray(whole), bytearray(whole)
    for slot in slots:
        lost[header + slot * size + length] ^= 1
    place = header + 2 * size
    moved[place + 24] -= 1
    moved[place + 8 : place + 12] = zlib.crc32(moved[place + 12 : place + length]).to_bytes(
        4, "little"
    )
    for data, words in (
        (lost, "[0-9a-f]+"),
        (moved, ".*block [0-9] begins at row .*"),
    ):
        path.write_bytes(data)
        wanted = outcome(lambda: python(path, "int8").close(), path)
        path.write_bytes(data)
        assert outcome(lambda: (native.open(path, "int8"), native("close")), path) == wanted
        assert re.fullmatch(words, wanted)
