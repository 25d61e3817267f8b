"""Keys and values in 8 bits: how far they come back from what they were."""

import numpy as np
import pytest

from lcc.runtime.archive.eight_bits import quantize, restore


@pytest.mark.parametrize("count", [1, 2, 128])
def test_each_number_comes_back_within_half_a_step(count):
    rows = np.random.default_rng(count).normal(size=(count, 3, 16)).astype(np.float32)
    rows[:, 1, 0] += 300  # as keys have it
    rows[:, 1, 1] *= 1e-6
    rows[:, 2, 3:5] = 0.0, 7.0
    numbers, ranges = quantize(rows)
    assert (numbers.dtype, ranges.dtype) == (np.int8, np.float32)
    assert (numbers.shape, ranges.shape) == (rows.shape, (2, 3, 16))
    again = restore(numbers, ranges)
    assert again.dtype == np.float32
    for head in range(3):
        for channel in range(16):
            wanted = [float(each) for each in rows[:, head, channel]]
            step = (max(wanted) - min(wanted)) / 254
            rounding = max(map(abs, wanted)) * 2e-7  # of float32
            for one, other in zip(wanted, again[:, head, channel], strict=True):
                assert abs(one - float(other)) <= step / 2 + rounding
    assert (again[:, 2, 3:5] == [0, 7]).all()
    some = np.array([0, count - 1])
    assert (restore(numbers[some], ranges) == again[some]).all()


def test_a_large_channel_takes_no_bits_from_others():
    rows = np.random.default_rng(0).normal(size=(9, 1, 4)).astype(np.float32)
    rows[..., 2] *= 1000
    error = np.abs(restore(*quantize(rows)) - rows)[:, 0].max(0)
    assert error[[0, 1, 3]].max() < 0.02 < 1 < error[2]
