"""What accelerators compute of sinks and of a bias by slot, against the operator itself."""

import pytest
import torch

from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.targets.standard_operators import _cached_attention

HEADS, KV_HEADS, SIZE, SLOTS = 4, 2, 8, 20


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("more", ["nothing", "sinks", "bias"])
def test_it_is_the_operator(more: str, window: int) -> None:
    draw = torch.Generator().manual_seed(0)
    sinks = torch.randn(HEADS, generator=draw) + 1 if more == "sinks" else None
    bias = torch.randn(HEADS, SLOTS + 1, generator=draw) if more == "bias" else None
    caches = [torch.randn(1, KV_HEADS, SLOTS, SIZE, generator=draw) for _ in range(2)]
    for used, length in ((0, 3), (7, 1), (11, 6)):
        q = torch.randn(1, length, HEADS, SIZE, generator=draw)
        k, v = (torch.randn(1, length, KV_HEADS, SIZE, generator=draw) for _ in range(2))
        first = torch.tensor([used], dtype=torch.int32)
        given = (q, k, v, *caches, first, 0.4, window, 0.0, -1, sinks, bias)
        wanted = torch.ops.lcc.cached_attention(*given)
        for got, each in zip(_cached_attention(*given), wanted, strict=True):
            torch.testing.assert_close(got, each, rtol=1e-4, atol=1e-5)
