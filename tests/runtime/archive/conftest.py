"""A small archive whose contents follow from the numbers of its blocks."""

from pathlib import Path

import numpy as np
import pytest

from lcc.runtime.archive import Archive, Column


class Book:
    """The file, how it is opened, and what its blocks hold."""

    columns = (
        Column("key", "float16", (2, "rows", 3)),
        Column("position", "int64", ("rows",)),
        Column("scale", "float32", (2, 4)),
        Column("value", "int8", (2, "rows", 5)),
    )
    rows = 4
    header_bytes = block_bytes = 4096
    offsets = (64, 128, 192, 256)  # of the columns in a block

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, slots: int | None = None, **other) -> Archive:
        """Open it as always, with room for so many blocks, or with other arguments."""
        if slots is not None:
            other["limit_bytes"] = self.header_bytes + slots * self.block_bytes
        given = {"fingerprint": "f" * 64, "columns": self.columns, "rows": self.rows} | other
        return Archive.open(self.path, **given)

    def place(self, slot: int, offset: int = 0) -> int:
        """Where a byte of a slot lies in the file."""
        return self.header_bytes + slot * self.block_bytes + offset

    def rewrite(self, offset: int, data: bytes) -> None:
        """Change some bytes of the file."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def arrays(self, seed: int, count: int = rows) -> dict[str, np.ndarray]:
        """Columns of `count` rows, none of them zero."""
        random, arrays = np.random.default_rng(seed), {}
        for column in self.columns:
            shape = [count if size == "rows" else size for size in column.shape]
            arrays[column.name] = random.integers(1, 100, shape).astype(column.dtype)
        return arrays

    def fill(self, archive: Archive, numbers: range) -> None:
        """Append full blocks of these numbers, which are their seeds."""
        for number in numbers:
            assert archive.append(self.rows, self.arrays(number)) == number

    def check(self, archive: Archive, block: int, seed: int, count: int = rows) -> None:
        """The block holds what `arrays(seed, count)` gives, and zeros behind it."""
        assert archive.count(block) == count
        for column in self.columns:
            got, wanted = archive.column(block, column.name), self.arrays(seed, count)[column.name]
            if "rows" not in column.shape:
                assert (got.dtype, got.tolist()) == (column.dtype, wanted.tolist())
                continue
            rows = np.moveaxis(got, column.shape.index("rows"), 0)
            assert (got.dtype, len(rows)) == (column.dtype, self.rows)
            wanted = np.moveaxis(wanted, column.shape.index("rows"), 0)
            assert rows[:count].tolist() == wanted.tolist()
            assert not rows[count:].any()

    def check_all(self, archive: Archive, blocks: range) -> None:
        """These full blocks are here, and nothing else."""
        assert archive.blocks == blocks
        assert archive.length == len(blocks) * self.rows
        assert archive.lost == blocks.start * self.rows
        for block in blocks:
            self.check(archive, block, seed=block)


@pytest.fixture
def book(tmp_path) -> Book:
    return Book(tmp_path / "book.lccarchive")
