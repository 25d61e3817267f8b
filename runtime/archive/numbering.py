"""Which blocks are here, and which rows they hold: integers, no file."""

from collections.abc import Sequence

from lcc.errors import ConfigError
from lcc.runtime.archive.headers import BlockHeader


class Numbering:
    """Blocks that follow one another, and the number of the first row of each.

    blocks          oldest first; none = the next block and its first row are those of `start`
    """

    def __init__(self, blocks: Sequence[BlockHeader], start: tuple[int, int]) -> None:
        first, row = blocks[0][:2] if blocks else start
        self.blocks = range(first, first)
        self._first_rows = {first: row}  # of every block, and of the next one
        for block in blocks:
            self.add(block.rows)

    def next_blocks(self, sizes: Sequence[int]) -> list[BlockHeader]:
        """The blocks that `add` adds, called with each of these numbers of rows."""
        number, row, blocks = self.blocks.stop, self._first_rows[self.blocks.stop], []
        for rows in sizes:
            blocks.append(BlockHeader(number, row, rows))
            number, row = number + 1, row + rows
        return blocks

    def add(self, rows: int) -> None:
        """Add a block of so many rows behind the others."""
        number = self.blocks.stop
        self._first_rows[number + 1] = self._first_rows[number] + rows
        self.blocks = range(self.blocks.start, number + 1)

    def drop_oldest(self) -> None:
        """Let the oldest block be overwritten."""
        del self._first_rows[self.blocks.start]
        self.blocks = self.blocks[1:]

    def drop_from(self, end: int) -> None:
        """Drop the blocks from `end` on; the next one has this number."""
        for number in range(end, self.blocks.stop):
            del self._first_rows[number + 1]
        self.blocks = range(self.blocks.start, end)

    def first_row(self, block: int) -> int:
        """Rows before this block, or before the next one, since the first of all."""
        if block not in self._first_rows:
            raise ConfigError(f"no block {block}; {self}")
        return self._first_rows[block]

    def count(self, block: int) -> int:
        """Rows of a block."""
        if block not in self.blocks:
            raise ConfigError(f"no block {block}; {self}")
        return self._first_rows[block + 1] - self._first_rows[block]

    def __str__(self) -> str:
        first, stop = self.blocks.start, self.blocks.stop
        return f"blocks {first} .. {stop - 1} are here" if self.blocks else "no block is here"
