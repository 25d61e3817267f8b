"""The archive: blocks of rows, appended by one session, read as mapped arrays.

A process that is killed while it writes leaves a file that opens with every block that was whole.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from lcc.errors import ArchiveError, ConfigError
from lcc.runtime.archive.block_file import BlockFile
from lcc.runtime.archive.headers import BlockHeader
from lcc.runtime.archive.layout import Column, Layout
from lcc.runtime.archive.numbering import Numbering
from lcc.runtime.archive.recovery import keep_whole


class Archive:
    """An open archive. `Archive.open` makes one; not for several threads at a time.

    layout      columns and sizes
    dropped     what was not whole when the file was opened and is gone, in words; None = nothing
    stopped     why nothing more is appended, in words; None = appending goes on
    """

    def __init__(self, path: Path, file: BlockFile) -> None:
        self.path, self.layout, self._file = path, file.layout, file
        self._index = {column.name: i for i, column in enumerate(file.layout.columns)}
        self._checked = dict[int, int]()  # block -> its checked columns, a bit each
        self._closed = False
        self._coming = list[BlockHeader]()  # blocks that are being written
        self._crcs = list[dict[int, int]]()  # of each, column -> crc32
        self.stopped: str | None = None
        self.dropped: str | None = None
        found, size = keep_whole(file), file.file.size
        self._numbering = Numbering(found.blocks, file.start)
        self._cut()
        if found.clear or size > file.file.size:
            self.dropped = f"blocks that were not whole were dropped; {self._numbering}"

    @classmethod
    def open(
        cls,
        path: str | Path,
        fingerprint: str,
        columns: Sequence[Column],
        rows: int,
        *,
        limit_bytes: int | None = None,
    ) -> Self:
        """Open the archive at `path`, or make one, for this session alone.

        Args:
            path: The file. One that is empty counts as none.
            fingerprint: Of the artifact whose rows these are.
            columns: Of a block, in their order in the file.
            rows: Most rows of a block.
            limit_bytes: Most bytes of the file: when it is full, a new block takes the place of
                the oldest. None = as the file was made; a new one has no limit.

        Raises:
            ArchiveError: another session has it, it is damaged, or of another artifact, of other
                columns, rows or limit; the disk refuses.
            ConfigError: columns that cannot be, or a limit with no room for two blocks.
        """
        path, layout = Path(path), Layout(tuple(columns), rows)
        with _naming(path):
            file = BlockFile(path, fingerprint, layout, limit_bytes)
            try:
                return cls(path, file)
            except BaseException:
                file.close(flush=False)
                raise

    @property
    def blocks(self) -> range:
        """Numbers of the blocks that are here; the first block of a new file is 0."""
        return self._numbering.blocks

    @property
    def length(self) -> int:
        """Rows that are here."""
        return self._numbering.first_row(self.blocks.stop) - self.lost

    @property
    def lost(self) -> int:
        """Rows that are gone because newer ones took their place: those before the first block."""
        return self._numbering.first_row(self.blocks.start)

    @property
    def bytes_per_row(self) -> int:
        """Bytes in the file of a row of a full block, rounded up."""
        return self.layout.bytes_per_row

    @property
    def file_bytes(self) -> int:
        """Bytes of the file now."""
        return self._file.file.size

    def first_row(self, block: int) -> int:
        """Rows before this block since the first one; of `blocks.stop`, too."""
        return self._numbering.first_row(block)

    def count(self, block: int) -> int:
        """Rows in use of a block."""
        return self._numbering.count(block)

    def append(self, count: int, arrays: Mapping[str, np.ndarray]) -> int | None:
        """Write a block; returns its number, or None where appending has stopped before.

        Args:
            count: Rows in use, 1 .. rows.
            arrays: Column -> array of its dtype and shape, with `count` rows or more, of which
                the first are taken, where it has rows.

        Raises:
            ArchiveError: the disk refuses. What was archived before is as it was, but for the
                oldest block of a full file; `stopped` says why, and later calls do nothing.
            ConfigError: arrays that are not those of the columns.
        """
        if self.stopped is not None:
            return None
        if not 1 <= count <= self.layout.rows:
            raise ConfigError(f"{self.path}: {count} rows, wanted 1 .. {self.layout.rows}")
        self._check_arrays(count, arrays)
        number = self.blocks.stop
        self.begin(count)
        for name, array in arrays.items():
            whole = self.layout.columns[self._index[name]].axis is None
            self.put(name, array[None] if whole else array)
        self.commit()
        return number

    def begin(self, count: int) -> None:
        """Rows follow, as many blocks as they take, column by column; `commit` ends them.

        So no more than one column of them need be in memory. Nothing is there before `commit`.

        Raises:
            ArchiveError: the disk refuses; see `append`.
        """
        if self.stopped is not None:
            return
        sizes = [min(self.layout.rows, count - i) for i in range(0, count, self.layout.rows)]
        self._coming = self._numbering.next_blocks(sizes)
        self._crcs = [dict[int, int]() for _ in sizes]
        with self._stopping():
            for block in self._coming:
                if block.number - self.blocks.start == self._file.slots:
                    self._checked.pop(self.blocks.start, None)
                    self._numbering.drop_oldest()
                self._file.begin(block.number)

    def put(self, name: str, array: np.ndarray) -> None:
        """A column of the rows that `begin` has announced, in its own dtype.

        Of a column without rows, an array [blocks, ...], as many as the rows take.

        Raises:
            ArchiveError: the disk refuses; see `append`.
        """
        index, first = self._index[name], 0
        column = self.layout.columns[index]
        shape, before = self.layout.shape(column), (slice(None),) * (column.axis or 0)
        with self._stopping():
            for number, (block, crcs) in enumerate(zip(self._coming, self._crcs, strict=True)):
                if column.axis is None:
                    body = array[number]
                else:
                    body = array[(*before, slice(first, first + block.rows))]
                if body.shape != shape or not body.flags.c_contiguous:
                    whole = np.zeros(shape, column.dtype)
                    whole[(*before, slice(body.shape[column.axis or 0]))] = body
                    body = whole
                crcs[index] = self._file.write(block.number, index, body)
                first += block.rows

    def commit(self) -> None:
        """Let the rows be there, of which every column was put.

        Raises:
            ArchiveError: the disk refuses; see `append`.
        """
        with self._stopping():
            for block, crcs in zip(self._coming, self._crcs, strict=True):
                self._file.finish(block, [crcs[i] for i in range(len(self._index))])
                self._numbering.add(block.rows)
                self._checked[block.number] = -1  # all of them: written from memory just now
        self._coming, self._crcs = [], []

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """Where the disk refuses, nothing more is written."""
        try:
            yield
        except OSError as error:
            self._coming, self._crcs = [], []
            self._cut()
            self.stopped = (
                f"{_reason(error)} (wanted {self.layout.block_bytes} bytes for block "
                f"{self.blocks.stop}); archiving stops, what was archived before can be read; "
                "make room, or set a limit, and begin anew"
            )
            raise ArchiveError(f"{self.path}: {self.stopped}") from None

    def column(self, block: int, name: str) -> np.ndarray:
        """A column of a block where it lies in the file, for all `rows` of a block.

        Rows behind `count(block)` are zero, where the column has rows. The array is read-only, and
        what it holds is valid until its block is dropped or overwritten. It keeps its block in
        memory, and the file locked: a scan that keeps no array holds no more than one block.

        Returns:
            The array in the column's shape, aligned to 64 bytes.

        Raises:
            ArchiveError: it changed since it was written (checked once in a session).
            ConfigError: no such block or column.
        """
        with _naming(self.path):
            self._numbering.count(block)
            if (index := self._index.get(name)) is None:
                raise ConfigError(f"no column {name}, only {', '.join(self._index)}")
            checked = self._checked.get(block, 0)
            if not checked >> index & 1:
                if wrong := self._file.wrong(block, index):
                    raise ArchiveError(f"{wrong}; delete the file and begin anew")
                self._checked[block] = checked | 1 << index
            return self._file.column(self._file.slot(block), index)

    def truncate(self, end: int) -> None:
        """Drop the blocks from this number on; the next block has it. Overwritten ones stay lost.

        Raises:
            ArchiveError: block `end` was overwritten by later ones, or the disk refuses.
            ConfigError: there are no blocks up to it.
        """
        with _naming(self.path):
            if not 0 <= end <= self.blocks.stop:
                raise ConfigError(f"no block {end}; {self._numbering}")
            if end < self.blocks.start:
                raise ArchiveError(
                    f"block {end} was overwritten by later ones; {self._numbering}; clear the "
                    "archive and read the text again"
                )
            if end == self.blocks.start:
                self._file.write_start(end, self.lost)
            self._drop(end)

    def clear(self) -> None:
        """Drop all blocks and begin anew with block 0 and row 0; appending goes on.

        Raises:
            ArchiveError: the disk refuses.
        """
        with _naming(self.path):
            self._file.write_start(0, 0)
            self._drop(self.blocks.start)
            self._numbering, self.stopped = Numbering([], (0, 0)), None

    def close(self) -> None:
        """Wait until the disk has all blocks, and let others open the file; twice is once.

        Where arrays of it are still in use, others can open it when they are gone.

        Raises:
            ArchiveError: the disk refuses.
        """
        with _naming(self.path):
            if not self._closed:
                self._closed = True
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _check_arrays(self, count: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise ConfigError for arrays that are not those of the columns."""
        if arrays.keys() != self._index.keys():
            names = sorted(arrays.keys() ^ self._index.keys())
            raise ConfigError(f"{self.path}: columns {', '.join(names)} are missing or unknown")
        for column in self.layout.columns:
            array, shape, axis = arrays[column.name], self.layout.shape(column), column.axis
            if axis is not None and array.ndim == len(shape) and array.shape[axis] >= count:
                shape = (*shape[:axis], array.shape[axis], *shape[axis + 1 :])
            if array.dtype != column.dtype or array.shape != shape:
                raise ConfigError(
                    f"{self.path}: column {column.name} is {array.dtype} {list(array.shape)}, "
                    f"wanted {column.dtype} {list(column.shape)} with {count} rows or more"
                )

    def _drop(self, end: int) -> None:
        """Drop the blocks from `end` on: cut off first, so that a file holds all of them or none.

        Headers are cleared where they remain: in front of the blocks of a full file, or under
        arrays that are still in use.
        """
        behind = range(end, self.blocks.stop)
        self._numbering.drop_from(end)
        self._cut()
        for number in reversed(behind):
            if (slot := self._file.slot(number)) < self._file.held:
                self._file.clear(slot)

    def _cut(self) -> None:
        """Cut off the slots behind all that are in use."""
        slots = 0
        if self.blocks:
            first, last = self._file.slot(self.blocks[0]), self._file.slot(self.blocks[-1])
            slots = last + 1 if first <= last else self._file.held
        self._file.cut(slots)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors name the file; those of the system become errors of the archive."""
    try:
        yield
    except (ArchiveError, ConfigError) as error:
        raise type(error)(f"{path}: {error}") from None
    except OSError as error:
        raise ArchiveError(f"{path}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    """What the system says, as part of a sentence."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]
