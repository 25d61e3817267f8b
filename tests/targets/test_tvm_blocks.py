"""Products in blocks of 4 and 8 bits, on every level of CPU that code runs for here."""

import numpy as np
import pytest
import torch

from lcc.artifact.cpu import ARM_LEVELS
from lcc.targets import missing

if missing("tvm:cpu"):
    pytest.skip("tvm is not installed", allow_module_level=True)

from lcc.targets.tvm_cpu import block_products
from lcc.targets.tvm_cpu.tir import TILES
from lcc.testing.tvm_kernels import HERE, compiled, drawn


def given_back(weight: np.ndarray, bits: int, level_of_cpu: str) -> np.ndarray:
    """What [N, K] is after rounding, block by block, from its least to its largest number.

    Bytes are signed on Arm: there it is the number of level 0 that a float16 holds.
    """
    first = -128 if bits == 8 and level_of_cpu in ARM_LEVELS else 0
    found = np.zeros(weight.shape, np.float64)
    for n, row in enumerate(weight):
        power = 2.0 ** np.ceil(np.log2(max(abs(row).max(), 1e-30)))
        for start in range(0, len(row), 32):
            block = row[start : start + 32].astype(np.float64)
            half = np.float16((block.max() - block.min()) / power / (2**bits - 1))
            at_zero = float(np.float16(block.min() / power - first * float(half))) * power
            step = float(half) * power
            for k, number in enumerate(block):
                level = round((number - at_zero) / step) if step else 0
                level = min(max(level, first), first + 2**bits - 1) if step else 0
                found[n, start + k] = level * step + at_zero
    return found


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("n", "k", "bias"), [(96, 64, False), (33, 160, True)])
def test_products_are_those_of_the_blocks(
    n: int, k: int, bias: bool, bits: int, level: str
) -> None:
    """Inputs are rounded in blocks, too: each is off by half a level of its own block at most."""
    tiles = TILES[level]
    of_rows = compiled(block_products.round_rows(k, 3, tiles), level)
    run = compiled(block_products.linear(n, k, 3, tiles, bits=bits, bias=bias), level)
    weight, added = drawn(n, k), drawn(n, seed=1) if bias else torch.zeros(n)
    weight[0], weight[1, :32], weight[2] = 1.0, -3.0, 0.0  # blocks of one number
    weight[3] *= 1e-4
    wanted_weight = given_back(weight.numpy(), bits, level)
    packed = torch.from_numpy(block_products.pack(weight.numpy(), tiles, bits=bits))
    assert packed.shape == block_products.packed_shape(n, k, tiles, bits=bits)
    for m in (1, 7, 33):
        x, out = drawn(1, m, k, seed=2), torch.full((1, m, n), torch.nan)
        x[0, 0, :32] = -2.0
        x[0, 0, 32:64] *= 100
        words = torch.zeros((1, m, block_products.rounded_size(k)), dtype=torch.int32)
        of_rows(x, words)
        blocks = words.reshape(m, k // 32, 10)
        levels = blocks[..., :8].contiguous().view(torch.int8).reshape(m, k // 32, 32).numpy()
        scales = blocks[..., 8].contiguous().view(torch.float32).numpy()
        of_x = (levels * scales[..., None].astype(np.float64)).reshape(m, k)
        half = np.repeat(np.abs(x[0].numpy()).reshape(m, -1, 32).max(-1) / 254, 32, axis=-1)
        assert (np.abs(of_x - x[0].numpy()) <= half * 1.001).all()
        run(words, packed, *([added] if bias else []), out)
        wanted = of_x @ wanted_weight.T + added.numpy()
        np.testing.assert_allclose(out[0].numpy(), wanted, atol=1e-5 * np.abs(of_x).max() * k**0.5)


@pytest.mark.parametrize("level", HERE)
def test_a_number_that_is_none_is_not_hidden(level: str) -> None:
    """Of its row, and of no other one."""
    tiles = TILES[level]
    of_rows = compiled(block_products.round_rows(64, 3, tiles), level)
    run = compiled(block_products.linear(70, 64, 3, tiles, bits=4), level)
    packed = torch.from_numpy(block_products.pack(drawn(70, 64).numpy(), tiles, bits=4))
    for number in (torch.nan, torch.inf):
        x, out = drawn(1, 3, 64), torch.zeros(1, 3, 70)
        x[0, 1, 5] = number
        words = torch.zeros((1, 3, block_products.rounded_size(64)), dtype=torch.int32)
        of_rows(x, words)
        run(words, packed, out)
        assert not out[0, 1].isfinite().any()
        assert out[0, [0, 2]].isfinite().all()


def test_a_weight_that_is_none_is_not_hidden() -> None:
    """Of its column, and of no other one."""
    level = HERE[0]
    tiles, weight, k = TILES[level], drawn(70, 64), 64
    weight[3, 5], weight[4, 40] = torch.nan, torch.inf
    of_rows = compiled(block_products.round_rows(k, 3, tiles), level)
    run = compiled(block_products.linear(70, k, 3, tiles, bits=4), level)
    with np.errstate(all="ignore"):
        packed = torch.from_numpy(block_products.pack(weight.numpy(), tiles, bits=4))
    words = torch.zeros((1, 3, block_products.rounded_size(k)), dtype=torch.int32)
    out = torch.zeros(1, 3, 70)
    of_rows(drawn(1, 3, k, seed=2), words)
    run(words, packed, out)
    finite = out.isfinite().all(1)[0]
    assert not finite[[3, 4]].any()
    assert finite.sum() == 68


@pytest.mark.parametrize("level", [HERE[0], HERE[-1]])
@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_a_table_in_blocks(bits: int, level: str) -> None:
    """Of a token that is none, the first or the last one."""
    tiles, table = TILES[level], drawn(70, 96)
    run = compiled(block_products.lookup(70, 96, tiles, "int64", bits=bits), level)
    tokens, out = torch.tensor([[0, 69, 33, -5, 1000]]), torch.full((1, 5, 96), torch.nan)
    run(torch.from_numpy(block_products.pack(table.numpy(), tiles, bits=bits)), tokens, out)
    wanted = given_back(table.numpy(), bits, level)[[0, 69, 33, 0, 69]]
    np.testing.assert_allclose(out[0].numpy(), wanted, atol=1e-6)


def test_a_file_of_q4_1_is_not_changed() -> None:
    """Where a block's least and largest number are levels 0 and 15 of its own grid."""
    generator = np.random.default_rng(3)
    scale = generator.uniform(0.01, 0.1, (8, 3, 1)).astype(np.float16).astype(np.float32)
    least = generator.uniform(-1, 0, (8, 3, 1)).astype(np.float16).astype(np.float32)
    levels = generator.integers(0, 16, (8, 3, 32))
    levels[..., 0], levels[..., 5] = 0, 15
    weight = (levels * scale + least).reshape(8, 96).astype(np.float32)
    level = HERE[-1]
    np.testing.assert_allclose(given_back(weight, 4, level), weight, rtol=0, atol=1e-6)
    run = compiled(block_products.lookup(8, 96, TILES[level], "int64", bits=4), level)
    out = torch.zeros(1, 8, 96)
    packed = block_products.pack(weight, TILES[level], bits=4)
    run(torch.from_numpy(packed), torch.arange(8)[None], out)
    np.testing.assert_allclose(out[0].numpy(), weight, rtol=0, atol=1e-6)
