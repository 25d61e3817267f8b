"""Products in 8 bits and attention in bfloat16, on every level of CPU that code runs for here."""

import numpy as np
import pytest
import torch

from lcc.artifact.cpu import ARM_LEVELS
from lcc.targets import missing

if missing("tvm:cpu"):
    pytest.skip("tvm is not installed", allow_module_level=True)

from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.targets.tvm_cpu import byte_products
from lcc.targets.tvm_cpu.attention import cached_attention
from lcc.targets.tvm_cpu.attention_bf16 import takes
from lcc.targets.tvm_cpu.attention_rows import Layer
from lcc.targets.tvm_cpu.tir import TILES, tiles_of
from lcc.testing.tvm_kernels import HERE, compiled, drawn

SLOTS = 300
STEPS = [(0, 2), (0, 33), (5, 70), (126, 2), (127, 9), (128, 128), (200, 100)]


def rounded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels of rows [N, K], and their scales, number by number."""
    levels, scales = np.zeros(x.shape, np.int64), np.zeros(len(x), np.float32)
    for i, row in enumerate(x):
        scales[i] = max(abs(number) for number in row) / np.float32(127)
        levels[i] = [round(float(number / scales[i])) for number in row]
    return levels, scales


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize(("n", "k", "bias"), [(96, 64, False), (70, 50, True), (33, 35, True)])
def test_products_are_those_of_the_levels(n: int, k: int, bias: bool, level: str) -> None:
    """Columns, rows and words that nothing fills; the largest numbers are not cut off."""
    tiles = TILES[level]
    of_rows = compiled(byte_products.round_rows(k, 3, tiles), level)
    run = compiled(byte_products.linear(n, k, 3, tiles, bias=bias), level)
    weight, added = drawn(n, k), drawn(n, seed=1) if bias else torch.zeros(n)
    weight[0] = 1.0  # the sum of the largest levels there are
    levels, scales = rounded(weight.numpy())
    packed = torch.from_numpy(byte_products.pack(weight.numpy(), tiles))
    for m in (1, 7, 33):
        x, out = drawn(1, m, k, seed=2), torch.full((1, m, n), torch.nan)
        x[0, 0] = -2.0
        words = torch.zeros((1, m, byte_products.rounded_size(k, tiles)), dtype=torch.int32)
        of_rows(x, words)
        of_x, scale = rounded(x[0].numpy())
        kind = torch.int8 if level in ("cooperlake", *ARM_LEVELS) else torch.int16
        found = words[0, :, :-2].contiguous().view(kind)[:, :k].numpy()
        assert np.abs(found - of_x).max() <= 1, "one scale is rounded otherwise"
        run(words, packed, *([added] if bias else []), out)
        wanted = (found.astype(np.int64) @ levels.T) * scale[:, None] * scales + added.numpy()
        np.testing.assert_allclose(out[0].numpy(), wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("level", HERE)
def test_what_is_rounded_twice_is_hardly_rounded(level: str) -> None:
    """In the head, of one row: what the first rounding leaves is half a level, rounded again."""
    n, k, tiles = 70, 50, TILES[level]
    of_rows = compiled(byte_products.round_rows(k, 3, tiles, fine=True), level)
    run = compiled(byte_products.linear(n, k, 3, tiles, fine=True), level)
    weight = drawn(n, k)
    levels, scales = rounded(weight.numpy())
    packed = torch.from_numpy(byte_products.pack(weight.numpy(), tiles))
    for m in (1, 7, 33):
        x, out = drawn(1, m, k, seed=2), torch.full((1, m, n), torch.nan)
        words = torch.zeros((1, 2 * m, byte_products.rounded_size(k, tiles)), dtype=torch.int32)
        of_rows(x, words)
        run(words, packed, out)
        wanted = x[0].numpy() @ (levels * scales[:, None]).T
        error = np.abs(out[0].numpy() - wanted).max()
        assert error < 2e-3 if m == 1 else 0.02 < error < 0.3


@pytest.mark.parametrize("level", HERE)
def test_a_number_that_is_none_is_not_hidden(level: str) -> None:
    """Of its row, and of no other one."""
    tiles = TILES[level]
    of_rows = compiled(byte_products.round_rows(64, 3, tiles), level)
    run = compiled(byte_products.linear(70, 64, 3, tiles), level)
    packed = torch.from_numpy(byte_products.pack(drawn(70, 64).numpy(), tiles))
    for number in (torch.nan, torch.inf):
        x, out = drawn(1, 3, 64), torch.zeros(1, 3, 70)
        x[0, 1, 5] = number
        words = torch.zeros((1, 3, byte_products.rounded_size(64, tiles)), dtype=torch.int32)
        of_rows(x, words)
        run(words, packed, out)
        assert not out[0, 1].isfinite().any()
        assert out[0, [0, 2]].isfinite().all()


@pytest.mark.parametrize("level", [HERE[0], HERE[-1]])
def test_rows_of_a_table_in_bytes(level: str) -> None:
    """Of a token that is none, the first or the last one."""
    tiles, table = TILES[level], drawn(70, 50)
    run = compiled(byte_products.lookup(70, 50, tiles, "int64"), level)
    tokens, out = torch.tensor([[0, 69, 33, -5, 1000]]), torch.full((1, 5, 50), torch.nan)
    run(torch.from_numpy(byte_products.pack(table.numpy(), tiles)), tokens, out)
    levels, scales = rounded(table.numpy())
    wanted = (levels * scales[:, None])[[0, 69, 33, 0, 69]]
    np.testing.assert_allclose(out[0].numpy(), wanted, atol=1e-6)


@pytest.mark.skipif("cooperlake" not in HERE, reason="this CPU has no bfloat16 products")
@pytest.mark.parametrize(
    "layer",
    [
        Layer(9, 3, 64, 0.125),
        Layer(4, 2, 32, 0.2, softcap=2.0),
        Layer(6, 2, 32, 0.2, window=9, sink=3),
        Layer(4, 2, 96, 0.1, window=150),
        Layer(9, 3, 64, 0.125, half=True),
    ],
)
def test_attention_in_bfloat16(layer: Layer) -> None:
    """As far as bfloat16 goes; what lies in slots not in use is NaN, and is not looked at."""
    tiles = tiles_of("cooperlake", "int8")
    assert takes(layer, tiles)
    run = compiled(cached_attention(layer, tiles), "cooperlake")
    for used, length in STEPS:
        q, sink_q = (drawn(1, length, layer.query_heads, layer.size, seed=s) for s in (1, 2))
        k, v = (drawn(1, length, layer.kv_heads, layer.size, seed=s) for s in (3, 4))
        keys, values = (drawn(1, layer.kv_heads, SLOTS, layer.size, seed=s) for s in (5, 6))
        if layer.half:
            k, v, keys, values = (x.half().float() for x in (k, v, keys, values))
        args = (k, v, keys, values, torch.tensor([used], dtype=torch.int32))
        if layer.sink:
            numbers = (layer.sink, layer.window, layer.block, layer.scale, layer.softcap, -1)
            wanted = torch.ops.lcc.cached_sink_window(q, sink_q, *args, *numbers)[0]
        else:
            numbers = (layer.scale, layer.window, layer.softcap, -1)
            wanted = torch.ops.lcc.cached_attention(q, *args, *numbers)[0]
        keys[:, :, used:], values[:, :, used:] = torch.nan, torch.nan
        if layer.half:
            keys, values = keys.half(), values.half()
            args = (k, v, keys, values, args[-1])
        out = torch.full_like(q, torch.nan)
        run(*([q, sink_q] if layer.sink else [q]), *args, out)
        error = (out - wanted).abs()
        assert error.max() < 0.02 * wanted.abs().max()
        assert error.mean() < 0.003 * wanted.std(), "rounding is to the nearest, and to no side"
        assert error.max() > 1e-5, "that was no bfloat16"
        assert torch.equal(keys[:, :, used : used + length].float(), k.transpose(1, 2))


def test_only_rounded_weights_get_rounded_attention() -> None:
    layer = Layer(9, 3, 64, 0.125)
    assert takes(layer, tiles_of("cooperlake", "int8"))
    assert takes(layer, tiles_of("cooperlake", "int4"))
    assert not takes(layer, tiles_of("cooperlake", "fp32"))
    assert not takes(layer, tiles_of("x86-64-v4", "int8"))
    assert not takes(Layer(4, 2, 20, 0.2), tiles_of("cooperlake", "int8"))
