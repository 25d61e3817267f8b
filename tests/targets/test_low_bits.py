"""Rounding of matrices: every number against a loop over the definition."""

import numpy as np
import pytest

from lcc.targets.low_bits import BLOCK, blocks_of_4_bits, columns_of_8_bits, rows_of_8_bits

WEIGHT = np.random.default_rng(0).standard_normal((80, 5)).astype(np.float32) + 0.3


def four_bits(levels: np.ndarray, row: int, block: int, place: int) -> int:
    """The lower half of a byte comes first."""
    byte = int(levels[row, block, place // 2])
    return byte & 15 if place % 2 == 0 else byte >> 4


def test_columns_of_8_bits() -> None:
    levels, scales = columns_of_8_bits(WEIGHT)
    assert levels.dtype == np.int8
    for k, n in np.ndindex(WEIGHT.shape):
        assert abs(float(levels[k, n]) * scales[n] - WEIGHT[k, n]) <= scales[n] / 2 * 1.001
    assert np.abs(levels).max(axis=0).tolist() == [127] * 5, "the largest takes the last level"


def test_rows_of_8_bits() -> None:
    table = np.ascontiguousarray(WEIGHT[:64].T)
    levels, scales, offsets = rows_of_8_bits(table)
    assert (levels.shape, scales.shape, offsets) == ((5, 2, BLOCK), (5, 2), None)
    for n, k in np.ndindex(table.shape):
        scale = scales[n, k // BLOCK]
        again = (int(levels[n, k // BLOCK, k % BLOCK]) - 128) * scale
        assert abs(again - table[n, k]) <= scale / 2 * 1.001


def test_blocks_of_4_bits() -> None:
    """Ends of each block are levels of their own; 80 inputs are two blocks and a half."""
    levels, scales, offsets = blocks_of_4_bits(WEIGHT)
    assert (levels.shape, scales.shape) == ((5, 3, BLOCK // 2), (5, 3))
    assert offsets is not None
    assert offsets.shape == (3, 5)
    for k, n in np.ndindex(WEIGHT.shape):
        block, place = divmod(k, BLOCK)
        level = four_bits(levels, n, block, place)
        again = (level - 8) * scales[n, block] + offsets[block, n]
        assert abs(again - WEIGHT[k, n]) <= scales[n, block] / 2 * 1.001
    least = WEIGHT[:BLOCK, 0].argmin()
    assert four_bits(levels, 0, 0, int(least)) == 0


@pytest.mark.parametrize("offset", [0.0, -0.37])
def test_what_had_16_levels_is_not_changed(offset: float) -> None:
    """As the weights of a GGUF file in Q4_0 or Q4_1, whose levels need not meet zero."""
    drawn = np.random.default_rng(1).integers(0, 16, (BLOCK, 7))
    drawn[0], drawn[1] = 0, 15
    weight = (drawn * np.float32(0.0625) + np.float32(offset)).astype(np.float32)
    levels, scales, offsets = blocks_of_4_bits(weight)
    assert offsets is not None
    for k, n in np.ndindex(weight.shape):
        again = (four_bits(levels, n, 0, k) - 8) * scales[n, 0] + offsets[0, n]
        assert again == pytest.approx(weight[k, n], abs=1e-6)


def test_zeros_stay_zero() -> None:
    zeros = np.zeros((BLOCK, 2), np.float32)
    levels, _ = columns_of_8_bits(zeros)
    blocks, scales, offsets = blocks_of_4_bits(zeros)
    assert not levels.any()
    assert offsets is not None
    again = (four_bits(blocks, 0, 0, 0) - 8) * scales[0, 0] + offsets[0, 0]
    assert again == 0
