"""A matrix of weights of an ONNX model in 8 or 4 bits, rounded when it is written."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from lcc.ir.rounded import Rounded
from lcc.ir.weight_reads import Latest
from lcc.targets.low_bits import BLOCK, blocks_of_4_bits, columns_of_8_bits, rows_of_8_bits
from lcc.targets.onnx_weights import deferred, key_of_constant, row_blocks

Make = Callable[[], np.ndarray]
_ROWS = 1024  # outputs that are packed at once


class Matrix:
    """A constant with two axes, in float32.

    name    of the constant
    shape   as a product takes it
    rounded what its numbers were rounded to before, block by block of its inputs
    """

    def __init__(
        self,
        value: ir.Value,
        latest: Latest,
        *,
        transposed: bool = False,
        is_table: bool = False,
    ) -> None:
        """A constant.

        latest      keeps the parts of the matrix that was rounded last
        transposed  the product takes it with its axes exchanged
        is_table    [outputs, inputs]: an embedding, or an LM head that is one
        """
        assert value.const_value is not None
        self._tensor, self._transposed, self._latest = value.const_value, transposed, latest
        self.name = str(value.name)
        first, second = (int(size) for size in value.const_value.shape)
        self.shape = (second, first) if transposed else (first, second)
        stored = self._tensor.meta.get("transpose_of", self._tensor)
        self.rounded: Rounded | None = None
        if is_table or self._as_product:  # else blocks do not lie along the inputs
            self.rounded = stored.meta.get("rounded")

    @property
    def is_about_zero(self) -> bool:
        """Whether it was rounded, to levels about zero: the only ones that a lookup can have."""
        return self.rounded is not None and self.rounded.about_zero

    def columns_of_8_bits(self) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
        """Levels [K, N] int8 and scales [N]: see `low_bits.columns_of_8_bits`."""
        part = self._parts("int8", self._columns)
        return (
            self._deferred("int8", self.shape, ir.DataType.INT8, part(0)),
            self._deferred("int8.scales", self.shape[1:], ir.DataType.FLOAT, part(1)),
        )

    def blocks_of_4_bits(
        self,
    ) -> tuple[ir.TensorProtocol, ir.TensorProtocol, ir.TensorProtocol]:
        """Levels, scales and offsets: see `low_bits.blocks_of_4_bits`."""
        part = self._parts("int4", self._blocks)
        inputs, outputs = self.shape
        count = -(-inputs // BLOCK)
        sizes, kinds = (outputs, count, BLOCK // 2), (ir.DataType.UINT8, ir.DataType.FLOAT)
        return (
            self._deferred("int4", sizes, kinds[0], part(0)),
            self._deferred("int4.scales", sizes[:2], kinds[1], part(1)),
            self._deferred("offsets", (count, outputs), kinds[1], part(2)),
        )

    def known_blocks(
        self,
    ) -> tuple[ir.TensorProtocol, ir.TensorProtocol, ir.TensorProtocol | None]:
        """Levels [N, K / block, block], scales and offsets [K / block, N] of what was in 8 bits.

        weight = (level - 128) * scale + offset; offsets are None where all are zero.
        """
        part, known = self._parts("known", self._in_8_bits), self.rounded
        assert known is not None
        inputs, outputs = self.shape if self._as_product else self.shape[::-1]
        count, kinds = inputs // known.block, (ir.DataType.UINT8, ir.DataType.FLOAT)
        levels = self._deferred("int8", (outputs, count, known.block), kinds[0], part(0))
        scales = self._deferred("int8.scales", (outputs, count), kinds[1], part(1))
        if known.about_zero:
            return levels, scales, None
        return levels, scales, self._deferred("offsets", (count, outputs), kinds[1], part(2))

    def rows_of_8_bits(self, *, flat: bool = False) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
        """Levels [V, K / BLOCK, BLOCK], or [V, K], and scales: see `low_bits.rows_of_8_bits`."""
        vocabulary, inputs = self.shape
        size = BLOCK
        if self.rounded is not None and self.is_about_zero:
            part, size = self._parts("known", self._in_8_bits), self.rounded.block
        else:
            part = self._parts("rows", self._rows)
        blocks = (vocabulary, inputs // size, size)
        sizes = self.shape if flat else blocks
        return (
            self._deferred("int8", sizes, ir.DataType.UINT8, part(0)),
            self._deferred("int8.scales", blocks[:2], ir.DataType.FLOAT, part(1)),
        )

    def _columns(self) -> tuple[np.ndarray, ...]:
        levels, scales = np.empty(self.shape, np.int8), np.empty(self.shape[1:], np.float32)
        known = self.rounded
        if known is not None and known.bits == 8 and known.about_zero:
            for some, level, scale, _ in self._known(known):
                if (scale != scale[:, :1]).any():
                    break
                levels[:, some] = (level.reshape(len(level), -1) ^ np.uint8(128)).view(np.int8).T
                scales[some] = scale[:, 0]
            else:
                return levels, scales
        for some, columns in self._some_columns():
            levels[:, some], scales[some] = columns_of_8_bits(columns)
        return levels, scales

    def _blocks(self) -> tuple[np.ndarray, ...]:
        inputs, outputs = self.shape
        count = -(-inputs // BLOCK)
        levels = np.empty((outputs, count, BLOCK // 2), np.uint8)
        scales, offsets = np.empty((outputs, count), np.float32), np.empty((count, outputs), "f4")
        if (known := self.rounded) is not None and known.bits == 4:
            for some, level, scale, offset in self._known(known):
                levels[some] = level[..., 0::2] | level[..., 1::2] << 4
                scales[some], offsets[:, some] = scale, (offset + 8 * scale).T
            return levels, scales, offsets
        for some, columns in self._some_columns():
            levels[some], scales[some], offsets[:, some] = blocks_of_4_bits(columns)
        return levels, scales, offsets

    def _in_8_bits(self) -> tuple[np.ndarray, ...]:
        """Of a matrix that was in 8 bits, or of a table in 4 bits about zero."""
        known = self.rounded
        assert known is not None
        inputs, outputs = self.shape if self._as_product else self.shape[::-1]
        count, more = inputs // known.block, 128 - (1 << (known.bits - 1))
        levels = np.empty((outputs, count, known.block), np.uint8)
        scales, offsets = np.empty((outputs, count), np.float32), np.empty((count, outputs), "f4")
        for some, level, scale, offset in self._known(known):
            levels[some], scales[some] = level + np.uint8(more), scale
            offsets[:, some] = (offset + (128 - more) * scale).T
        return levels, scales, offsets

    def _known(self, known: Rounded) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Which outputs, their levels [n, K / block, block], scales and offsets."""
        outputs = self.shape[1] if self._as_product else self.shape[0]
        for start in range(0, outputs, _ROWS):
            stop = min(start + _ROWS, outputs)
            level, scale, offset = (each.numpy() for each in known.rows(start, stop))
            yield slice(start, stop), level.reshape(stop - start, -1, known.block), scale, offset

    @property
    def _as_product(self) -> bool:
        """Whether its shape is [inputs, outputs]: of a layer, not of a table."""
        return self._transposed or "transpose_of" in self._tensor.meta

    def _some_columns(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Which columns, and the columns [K, n]: a weight is read by outputs, as it is stored."""
        transposed, tensor = self._transposed, self._tensor
        if (source := tensor.meta.get("transpose_of")) is not None:
            transposed, tensor = not transposed, source
        if not transposed:
            array = tensor.numpy()
            yield slice(0, self.shape[1]), array
            return
        start = 0
        for rows in row_blocks(tensor):
            yield slice(start, start + len(rows)), rows.T
            start += len(rows)

    def _rows(self) -> tuple[np.ndarray, ...]:
        levels = np.empty((self.shape[0], self.shape[1] // BLOCK, BLOCK), np.uint8)
        scales, start = np.empty(levels.shape[:2], np.float32), 0
        for rows in row_blocks(self._tensor):
            some = slice(start, start + len(rows))
            levels[some], scales[some], _ = rows_of_8_bits(rows)
            start += len(rows)
        return levels, scales

    def _parts(self, kind: str, make: Callable[[], Any]) -> Callable[[int], Make]:
        """What gives a part of the rounded matrix; those asked for in turn are rounded once."""
        key = (key_of_constant(self._tensor), self._transposed, kind)
        return lambda place: lambda: self._latest.of(key, make)[place]

    def _deferred(self, what: str, shape: Any, dtype: ir.DataType, make: Make) -> ir.LazyTensor:
        key = (key_of_constant(self._tensor), self._transposed, what, dtype)
        name = f"{self.name}.{what}"
        return deferred(name, key, shape, dtype, lambda: make().reshape(shape))
