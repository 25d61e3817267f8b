"""Levels of GGUF tensors against the gguf package's numbers, of any bytes."""

import gguf
import numpy as np
import pytest

from lcc.sources.from_gguf.levels import KINDS, levels_of


@pytest.mark.parametrize("kind", KINDS)
def test_levels_and_scales_give_the_numbers(kind: int) -> None:
    numbers, size, _, bits, block, about_zero = KINDS[kind]
    draw = np.random.default_rng(kind)
    data = draw.integers(0, 256, (6, 512 // numbers, size)).astype(np.uint8)
    # d, and m or dmin: halves that are finite and not large; of Q6_K at the end.
    ends = slice(208, 210) if kind == 14 else slice(0, 2 if kind in (2, 6, 8) else 4)
    count = (ends.stop - ends.start) // 2
    halves = draw.uniform(-0.02, 0.02, (*data.shape[:2], count)).astype(np.float16)
    data[..., ends] = halves.view(np.uint8)
    wanted = gguf.quants.dequantize(data.reshape(6, -1), gguf.GGMLQuantizationType(kind))
    level, scale, offset = (each.numpy() for each in levels_of(kind, data.ravel(), 512))
    assert level.dtype == np.uint8
    assert level.max() > 15 if bits == 8 else (level.min(), level.max()) == (0, 15)
    made = level.reshape(6, -1, block) * scale[..., None] + offset[..., None]
    np.testing.assert_allclose(made.reshape(6, 512), wanted, rtol=1e-5, atol=1e-5)
    assert about_zero == np.allclose(offset, -(2 ** (bits - 1)) * scale)
