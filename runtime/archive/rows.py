"""An archive as a session sees it: one long table of rows, whatever blocks they lie in."""

import contextlib
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lcc.artifact.manifest import Manifest, fingerprint
from lcc.errors import ArchiveError, ConfigError
from lcc.ir.roles import Role
from lcc.runtime.archive.archive import Archive
from lcc.runtime.archive.eight_bits import quantize, restore
from lcc.runtime.archive.layout import Column

log = logging.getLogger(__name__)

ROWS = 128  # of a block: what an append that is not full wastes, at most
DTYPES = ("float16", "float32", "int8")  # of keys and values; the first is the default


class ArchiveRows:
    """Rows behind one another; keys and values in the dtype that the file has for them.

    archive     where they are
    known       the session has written them, or its state names them; otherwise they are of another
                text, and `check_new` refuses to begin one
    stopped     why nothing more is appended; None = appending goes on
    """

    def __init__(self, archive: Archive) -> None:
        self.archive, self.known = archive, False
        self._dtypes = {column.name: column.dtype for column in archive.layout.columns}
        self._ranged = {name for name in self._dtypes if _range(name) in self._dtypes}

    @classmethod
    def open(
        cls,
        path: str | Path,
        manifest: Manifest,
        *,
        dtype: str = DTYPES[0],
        limit_bytes: int | None = None,
    ) -> "ArchiveRows":
        """Open the archive of an artifact at `path`, or make one.

        Args:
            path: The file.
            manifest: Of the artifact.
            dtype: Of keys and values, one of `DTYPES`.
            limit_bytes: Most bytes of the file; then the oldest rows go. None = no limit.

        Raises:
            ArchiveError: as `Archive.open`.
            ConfigError: another dtype, or a limit with no room for two caches.
        """
        if dtype not in DTYPES:
            raise ConfigError(f'archive dtype is "{dtype}", wanted one of {", ".join(DTYPES)}')
        columns = columns_of(manifest, dtype)
        made = cls(
            Archive.open(path, fingerprint(manifest), columns, ROWS, limit_bytes=limit_bytes)
        )
        least = 2 * manifest.cache.capacity * made.archive.bytes_per_row
        if limit_bytes is not None and limit_bytes < least:
            made.close()
            raise ConfigError(
                f"archive limit is {limit_bytes:,} bytes, wanted {least:,} or more: a recall needs "
                "more rows than the cache has"
            )
        if made.archive.dropped is not None:
            log.warning("%s: %s", path, made.archive.dropped)
        return made

    @property
    def stopped(self) -> str | None:
        """Why nothing more is appended; None = appending goes on."""
        return self.archive.stopped

    @property
    def total(self) -> int:
        """Rows since the beginning, those included that newer ones have overwritten."""
        return self.archive.lost + self.archive.length

    def clear(self) -> None:
        """Begin anew, with no rows."""
        self.archive.clear()
        self.known = False

    def close(self) -> None:
        """Let others open the file."""
        self.archive.close()

    def check_new(self) -> None:
        """Refuse to begin a text while there are rows of another one.

        Raises:
            ArchiveError: says what to do.
        """
        if not self.known and self.archive.length:
            raise ArchiveError(
                f"{self.archive.path} holds {self.archive.length:,} tokens of another text; load "
                "the state that was saved with it, delete the file, or name another one"
            )

    def begin(self, count: int, held: int) -> None:
        """So many rows follow behind the first `held`, column by column; what follows is gone."""
        if held < self.archive.length:
            self._truncate(held)
        with _said():
            self.archive.begin(count)

    def put(self, column: str, rows: np.ndarray) -> None:
        """The rows of one column."""
        with _said(), np.errstate(over="ignore"):
            if column in self._ranged:
                size = self.archive.layout.rows
                parts = [quantize(rows[i : i + size]) for i in range(0, len(rows), size)]
                rows = np.concatenate([numbers for numbers, _ in parts])
                self.archive.put(_range(column), np.stack([ranges for _, ranges in parts]))
            self.archive.put(column, rows.astype(self._dtypes[column], copy=False))

    def commit(self) -> int:
        """All columns are there; returns how many rows there are now.

        Where the disk refuses, it is said once, and nothing more is appended.
        """
        with _said():
            self.archive.commit()
        self.known = True
        return self.archive.length

    def read(self, column: str, first: int, out: np.ndarray) -> None:
        """Copy rows from `first` on, as many as `out` has; ArchiveError where one is not here."""
        if len(out):
            self._check(first, first + len(out) - 1)
        for block, row, place, count in self._parts(first, len(out)):
            out[place : place + count] = self._of_block(block, column, slice(row, row + count))

    def take(self, column: str, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy these rows; ArchiveError where one is not here: programs choose them."""
        if rows.size:
            self._check(int(rows.min()), int(rows.max()))
        begins = self._first_rows()
        of_block = np.searchsorted(begins, rows, side="right") - 1
        for number in np.unique(of_block):
            mine = of_block == number
            block = self.archive.blocks[int(number)]
            out[mine] = self._of_block(block, column, rows[mine] - begins[number])

    def mark(self, held: int) -> tuple[int, int]:
        """What a saved state says of the archive: how many rows, and a checksum of the last.

        Args:
            held: Of so many of the rows that are here.

        Returns:
            Rows since the beginning, and the crc32 of the last one; (0, 0) = none.

        Raises:
            ArchiveError: there are no such rows.
        """
        if held == 0:
            return 0, 0
        total, row, check = self.archive.lost + held, held - 1, 0
        if not 0 <= row < self.archive.length:
            raise ArchiveError(
                f"{self.archive.path}: row {total - 1:,} is not there, of the {self.total:,} that "
                "were written; it is not the archive that the state was saved with"
            )
        ((block, place, *_),) = self._parts(row, 1)
        for column in self.archive.layout.columns:
            array = self.archive.column(block, column.name)
            part = array if column.axis is None else array[place]
            check = zlib.crc32(part.tobytes(), check)
        return total, check

    def go_back(self, total: int, check: int) -> int:
        """Belong to a text of which so many rows are known; returns how many are still there.

        Nothing is dropped before something is appended.

        Raises:
            ArchiveError: they are not those that the state was saved with.
        """
        if not total:  # nothing says whose rows there are
            self.check_new()
        held = total - self.archive.lost if total else 0
        if self.mark(held) != (total, check):
            raise ArchiveError(
                f"{self.archive.path} is not the archive that the state was saved with; wanted "
                "that one"
            )
        self.known = True
        return held

    def _check(self, first: int, last: int) -> None:
        if not 0 <= first <= last < self.archive.length:
            raise ArchiveError(
                f"{self.archive.path}: rows {first} .. {last} of {self.archive.length}"
            )

    def _of_block(self, block: int, column: str, rows: slice | np.ndarray) -> np.ndarray:
        """These rows of a block, as floats where they are keys or values."""
        numbers = self.archive.column(block, column)[rows]
        if column not in self._ranged:
            return numbers
        return restore(numbers, self.archive.column(block, _range(column)))

    def _truncate(self, held: int) -> None:
        begins, end = self._first_rows(), self.archive.blocks.start
        if held:
            number = int(np.searchsorted(begins, held))
            if number < len(begins) and begins[number] != held:
                raise ArchiveError(f"{self.archive.path}: no block begins with row {held:,}")
            end += number
        self.archive.truncate(end)

    def _first_rows(self) -> np.ndarray:
        """Of each block that is here, how many rows are before it."""
        archive = self.archive
        return np.array([archive.first_row(b) - archive.lost for b in archive.blocks], np.int64)

    def _parts(self, first: int, count: int) -> Iterator[tuple[int, int, int, int]]:
        """Block, first row in it, place in the result, and number of rows."""
        archive, begins, place = self.archive, self._first_rows(), 0
        number = int(np.searchsorted(begins, first, side="right")) - 1
        while place < count:
            block = archive.blocks[number]
            row = first + place - int(begins[number])
            some = min(count - place, archive.count(block) - row)
            yield block, row, place, some
            place, number = place + some, number + 1


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Log that the disk refuses: a session goes on without its archive."""
    try:
        yield
    except ArchiveError as error:
        log.warning("%s", error)


def columns_of(manifest: Manifest, dtype: str) -> list[Column]:
    """Columns of the file of an artifact's archive; dtype: of keys and values, one of `DTYPES`."""
    columns = []
    for spec in manifest.archive:
        wanted = spec.role in (Role.KEY, Role.VALUE)
        kind: Any = dtype if wanted else spec.dtype
        columns.append(Column(spec.name, kind, ("rows", *spec.shape)))
        if wanted and dtype == "int8":
            columns.append(Column(_range(spec.name), "float32", (2, *spec.shape)))
    return columns


def _range(column: str) -> str:
    """The column of what takes the numbers of another one, in 8 bits, back to floats."""
    return f"{column}_range"
