"""An archive's file as slots: a block written, cleared or mapped. Numbers no blocks itself."""

import contextlib
import mmap
import weakref
import zlib
from pathlib import Path

import numpy as np

from lcc.errors import ArchiveError, ConfigError
from lcc.runtime.archive import headers
from lcc.runtime.archive.headers import BlockHeader, Page, crc_of_column, decode_block_header
from lcc.runtime.archive.layout import Layout
from lcc.runtime.archive.locked_file import LockedFile


class BlockFile:
    """Opens an archive's file, or makes one, and locks it.

    limit_bytes     most bytes of the file; None = as the file was made, a new one without a limit

    Raises:
        ArchiveError: another session has it open, it is damaged, or of other rows than these.
        ConfigError: limit_bytes has no room for two blocks.
        OSError: the system refuses.
    """

    def __init__(
        self, path: Path, fingerprint: str, layout: Layout, limit_bytes: int | None
    ) -> None:
        slots = _slots(fingerprint, layout, limit_bytes)
        wanted = Page(fingerprint, layout.columns, layout.rows, slots)
        self._maps = weakref.WeakValueDictionary[int, mmap.mmap]()
        self._last: mmap.mmap | None = None
        self.layout = layout
        self.file = LockedFile(path)
        try:
            if not self.file.size:
                self._make(wanted)
            start = self.file.read(0, headers.PAGE_AT)
            text = self.file.read(headers.PAGE_AT, headers.page_bytes(start))
            page = headers.decode_page(start, text)
            _check(page, wanted)
            self.start = headers.decode_start(start)
            self.header_bytes = len(headers.encode_file_header(page))
            if self.file.size < self.header_bytes:
                got = f"{self.file.size} bytes of {self.header_bytes}"
                raise ArchiveError(f"ends in its header ({got}); delete it and begin anew")
            self.slots = page.slots
        except BaseException:
            self.file.close()
            raise

    def _make(self, page: Page) -> None:
        """Write the header of a new file; after an error the file is empty again."""
        try:
            self.file.write(0, headers.encode_file_header(page))
        except OSError:
            with contextlib.suppress(OSError):
                self.file.truncate(0)
            raise

    @property
    def held(self) -> int:
        """Slots that the file holds wholly, no more than it may."""
        held = max(0, self.file.size - self.header_bytes) // self.layout.block_bytes
        return held if self.slots is None else min(held, self.slots)

    def slot(self, number: int) -> int:
        """Where the block of this number lies."""
        return number if self.slots is None else number % self.slots

    def size(self, slots: int) -> int:
        """Bytes of a file with this many slots: where the next one begins."""
        return self.header_bytes + slots * self.layout.block_bytes

    def read_header(self, slot: int) -> bytes:
        """The block header in a slot."""
        return self.file.read(self.size(slot), self.layout.block_header_bytes)

    def clear(self, slot: int) -> None:
        """Make the slot hold no block."""
        self.file.write(self.size(slot), bytes(self.layout.block_header_bytes))

    def write_start(self, number: int, row: int) -> None:
        """Set the numbers of the next block and row for when the file holds no block."""
        self.start = number, row
        self.file.write(headers.START_AT, headers.encode_start(number, row))

    def begin(self, number: int) -> None:
        """Make room for a block, which counts as none until `finish`."""
        slot = self.slot(number)
        begin, end = self.size(slot), self.size(slot + 1)
        if self.file.size > begin:
            self.clear(slot)
        if self.file.size < end:
            self.file.truncate(end)

    def write(self, number: int, index: int, array: np.ndarray) -> int:
        """Write a column of a block, in the shape that it has there; returns its crc32."""
        data = array.reshape(-1).view(np.uint8).data
        self.file.write(self.size(self.slot(number)) + self.layout.offsets[index], data)
        return zlib.crc32(data)

    def finish(self, block: BlockHeader, crcs: list[int]) -> None:
        """Write the header of a block, whose columns are all there."""
        header = headers.encode_block_header(self.layout, block, crcs)
        self.file.write(self.size(self.slot(block.number)), header)

    def cut(self, slots: int) -> None:
        """Give the space behind so many slots back to the disk, unless an array still maps it."""
        self._last = None
        if self.file.size > self.size(slots) and not any(slot >= slots for slot in self._maps):
            with contextlib.suppress(OSError):  # Windows cuts no file of which a part is mapped
                self.file.truncate(self.size(slots))

    def column(self, slot: int, index: int) -> np.ndarray:
        """A column's array where it lies in the file, read-only.

        The block stays mapped as long as one of its arrays lives, or until another is mapped; so a
        scan holds the memory of one block.
        """
        column, begin = self.layout.columns[index], self.size(slot)
        ahead = begin % mmap.ALLOCATIONGRANULARITY
        if (whole := self._maps.get(slot)) is None:
            whole = self.file.map(begin - ahead, ahead + self.layout.block_bytes)
            self._maps[slot] = whole
        self._last = whole
        shape, offset = self.layout.shape(column), ahead + self.layout.offsets[index]
        return np.ndarray(shape, column.dtype, whole, offset)

    def wrong(self, number: int, index: int) -> str | None:
        """What is wrong with a column of a block, compared with the block's header."""
        slot = self.slot(number)
        header = self.read_header(slot)
        block = decode_block_header(self.layout, header)
        if block is None or block.number != number:
            return f"header of block {number} is damaged"
        got = zlib.crc32(self.column(slot, index).reshape(-1).view(np.uint8).data)
        if (wanted := crc_of_column(header, index)) != got:
            name = self.layout.columns[index].name
            return f"block {number}, column {name} is damaged (crc32 {got:08x}, not {wanted:08x})"
        return None

    def any_wrong(self, number: int) -> bool:
        """Whether any column of a block is not whole."""
        return any(self.wrong(number, index) for index in range(len(self.layout.columns)))

    def close(self, flush: bool = True) -> None:
        """Wait until the disk has everything, and close the file."""
        self._last = None
        try:
            if flush:
                self.file.flush()
        finally:
            self.file.close()


def _slots(fingerprint: str, layout: Layout, limit_bytes: int | None) -> int | None:
    """Blocks that fit the limit."""
    if limit_bytes is None:
        return None
    page = Page(fingerprint, layout.columns, layout.rows, slots=max(limit_bytes, 0))
    header_bytes = len(headers.encode_file_header(page))
    if (slots := (limit_bytes - header_bytes) // layout.block_bytes) < 2:
        least = header_bytes + 2 * layout.block_bytes
        raise ConfigError(
            f"limit_bytes is {limit_bytes}; wanted at least {least}: a header of {header_bytes} "
            f"bytes and two blocks of {layout.block_bytes}"
        )
    return slots


def _check(page: Page, wanted: Page) -> None:
    """Raise ArchiveError where a file has other rows than those wanted."""
    if page.fingerprint != wanted.fingerprint:
        raise ArchiveError(
            f"of another artifact (fingerprint {page.fingerprint[:12]}, this one has "
            f"{wanted.fingerprint[:12]}); give another path, or delete it"
        )
    if page.columns != wanted.columns:
        found, mine = ({c.name: c for c in each.columns} for each in (page, wanted))
        names = (n for n in sorted({*found, *mine}) if found.get(n) != mine.get(n))
        name = next(names, "their order")
        if name in found and name in mine and found[name].shape == mine[name].shape:
            raise ArchiveError(
                f"keeps {name} in {found[name].dtype}, wanted {mine[name].dtype}; open it with the "
                "dtype that it was made with (--archive-dtype), or give another path"
            )
        raise ArchiveError(
            f"of other columns ({name}: {found.get(name)}, wanted {mine.get(name)}); give another "
            "path, or delete it"
        )
    if page.rows != wanted.rows:
        raise ArchiveError(
            f"of blocks of {page.rows} rows, wanted {wanted.rows}; give another path, or delete it"
        )
    if wanted.slots is not None and page.slots != wanted.slots:
        has = "no limit" if page.slots is None else f"a limit of {page.slots} blocks"
        raise ArchiveError(
            f"made with {has}, wanted {wanted.slots} blocks; leave the limit away, or delete it"
        )
