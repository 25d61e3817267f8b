"""Where everything lies in an archive, in bytes.

    header           padded to a multiple of 4096
    slot 0           block header | column | column | ...   each column at a multiple of 64
    slot 1           ...                                    each slot at a multiple of 4096

A column of a block is one array of fixed shape: an engine takes it where it lies in the file.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec

from lcc.errors import ConfigError

ALIGNMENT = 64  # of the array of a column: what engines ask of memory that they are given
PAGE = 4096  # of blocks: what mmap asks of an offset on most systems
ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1, "int32": 4, "int64": 8}


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One array of each block.

    name        of the column, once in an archive
    dtype       of its numbers, which are little-endian
    shape       in a block; "rows", at most once, stands for the most rows of a block:
                (2, "rows", 64) = 64 numbers for each of 2 KV heads and each row. Without it, the
                array is one of the block, for all of its rows
    """

    name: str
    dtype: Literal["float32", "float16", "int8", "int32", "int64"]
    shape: tuple[int | Literal["rows"], ...]

    @property
    def axis(self) -> int | None:
        """The axis of rows; None = there is none."""
        return self.shape.index("rows") if "rows" in self.shape else None


@dataclass(frozen=True)
class Layout:
    """Sizes and places of blocks that hold up to `rows` rows of these columns.

    Raises:
        ConfigError: no columns, two of one name, or a shape that cannot be.
    """

    columns: tuple[Column, ...]
    rows: int

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"columns are {names}; wanted at least one, each name once")
        if self.rows < 1:
            raise ConfigError(f"rows is {self.rows}, wanted 1 or more in a block")
        for name, dtype, shape in map(msgspec.structs.astuple, self.columns):
            sizes = [size for size in shape if size != "rows"]
            if dtype not in ITEM_BYTES or len(sizes) < len(shape) - 1 or min(sizes, default=1) < 1:
                raise ConfigError(
                    f'column {name} is {dtype} {list(shape)}; wanted "rows" at most once, other '
                    f"sizes of 1 or more, and one of {', '.join(ITEM_BYTES)}"
                )

    def shape(self, column: Column) -> tuple[int, ...]:
        """The shape of a column's array in a block."""
        return tuple(self.rows if size == "rows" else size for size in column.shape)

    def column_bytes(self, column: Column) -> int:
        """Bytes of a column's array in a block, padding left out."""
        return math.prod(self.shape(column)) * ITEM_BYTES[column.dtype]

    @cached_property
    def block_header_bytes(self) -> int:
        """Bytes in front of the first column of a block."""
        return padded(32 + 4 * len(self.columns), ALIGNMENT)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each column begins in a block, and last where the block ends."""
        places = [self.block_header_bytes]
        for column in self.columns:
            places.append(padded(places[-1] + self.column_bytes(column), ALIGNMENT))
        return (*places[:-1], padded(places[-1], PAGE))

    @property
    def block_bytes(self) -> int:
        """Bytes of a block in the file, with header and padding."""
        return self.offsets[-1]

    @property
    def bytes_per_row(self) -> int:
        """Bytes in the file of a row of a full block, rounded up."""
        return -(-self.block_bytes // self.rows)


def padded(size: int, multiple: int) -> int:
    """The next multiple at or behind `size`."""
    return -(-size // multiple) * multiple
