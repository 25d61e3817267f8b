"""The native archive, driven line by line, and Python's: the same rows for both."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lcc.ir.roles import Role
from lcc.runtime.archive import Archive
from lcc.runtime.archive.rows import ROWS, ArchiveRows, columns_of

CAPACITY = 256
FINGERPRINT = "f" * 64
DTYPES = ("float16", "float32", "int8")
COUNTS = (100, 128, 300, 5, 129)  # of rows, one append after the other
COLUMNS = (
    SimpleNamespace(name="key_0", role=Role.KEY, dtype="float32", shape=(2, 5)),
    SimpleNamespace(name="value_0", role=Role.VALUE, dtype="float32", shape=(2, 5)),
    SimpleNamespace(name="position", role=Role.TOKEN_POSITION, dtype="int64", shape=()),
    SimpleNamespace(name="score", role=Role.ENTRY_SCORE, dtype="float32", shape=()),
)


class Refused(Exception):
    """What the program answered in place of ok."""


class Native:
    """The program of runtime/native/tests/archive_rows.cpp, with an archive open."""

    def __init__(self, program: Path, folder: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [program], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=folder
        )
        self.program, self.folder = program, folder
        for column in COLUMNS:
            shape = [str(size) for size in column.shape]
            self("column", column.name, column.role.value, column.dtype, *shape)
        self("manifest", FINGERPRINT, CAPACITY)

    def __call__(self, *words: object) -> str:
        """One command; returns what follows ok."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        kind, _, rest = self.process.stdout.readline().rstrip("\n").partition(" ")
        if kind != "ok":
            raise Refused(rest)
        return rest

    def open(self, path: Path, dtype: str = "float16", limit: int = 0) -> None:
        """An archive of COLUMNS, made where it is not there; `limit`: most bytes, 0 = any."""
        self("open", path, dtype, limit)

    def append(self, rows: dict[str, np.ndarray], held: int) -> int:
        """Rows of all columns, behind the first `held`; returns how many there are now."""
        data = b"".join(rows[column.name].tobytes() for column in COLUMNS)
        (self.folder / "rows_in").write_bytes(data)
        return int(self("append", len(rows["position"]), held, "rows_in"))

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        """Rows first .. first+count-1 of a column."""
        self("read", name, first, count, "out")
        return self._out(name, count)

    def take(self, name: str, rows: list[int]) -> np.ndarray:
        """These rows of a column."""
        self("take", name, "out", *rows)
        return self._out(name, len(rows))

    def _out(self, name: str, count: int) -> np.ndarray:
        column = next(c for c in COLUMNS if c.name == name)
        data = (self.folder / "out").read_bytes()
        return np.frombuffer(data, column.dtype).reshape(count, *column.shape)

    def end(self) -> str:
        """Let it end; returns what it logged."""
        return self.process.communicate(timeout=20)[1]


def python(path: Path, dtype: str = "float16", limit: int | None = None) -> ArchiveRows:
    """Python's archive at a path, of the same columns."""
    manifest: Any = SimpleNamespace(archive=COLUMNS)
    columns = columns_of(manifest, dtype)
    return ArchiveRows(Archive.open(path, FINGERPRINT, columns, ROWS, limit_bytes=limit))


def append(archive: ArchiveRows, rows: dict[str, np.ndarray], held: int) -> int:
    """As the interpreter appends."""
    archive.begin(len(rows["position"]), held)
    for name, array in rows.items():
        archive.put(name, array)
    return archive.commit()


def drawn(seed: int, count: int) -> dict[str, np.ndarray]:
    """Rows with numbers of all sizes: some round, some are too large or too small for float16."""
    random, rows = np.random.default_rng(seed), {}
    for column in COLUMNS:
        shape = (count, *column.shape)
        if column.dtype == "int64":
            rows[column.name] = np.arange(count) + 1000 * seed
            continue
        sizes = 10.0 ** random.integers(-9, 6, shape)
        rows[column.name] = (random.normal(size=shape) * sizes).astype(np.float32)
    rows["key_0"][:, 1, 2] = 7  # a channel that never changes
    rows["value_0"][:, 0, 0] = np.arange(count) % 2 + 2048.5  # halfway between two of float16
    # Halfway between two steps of 8 bits: they are 1 where -127 and 127 are there.
    rows["value_0"][:, 0, 1] = np.array([-127, 127, 0.5, 1.5, -2.5])[np.arange(count) % 5]
    return rows


def limit_of(dtype: str, blocks: int, folder: Path) -> int:
    """Bytes of a file with room for so many blocks."""
    with python(folder / "sized", dtype).archive as archive:
        return archive.file_bytes + blocks * archive.layout.block_bytes


def fill(native: Native, path: Path, dtype: str = "float16", limit: int = 0) -> int:
    """Make an archive with rows of COUNTS, each drawn by its number, and close it."""
    native.open(path, dtype, limit)
    held = 0
    for seed, count in enumerate(COUNTS):
        held = native.append(drawn(seed, count), held)
    native("close")
    return held
