"""Spellings of grouped query heads, read into one form."""

import pytest
import torch
from torch import nn

from lcc.capture.export import capture
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import shape


class Grouped(nn.Module):
    """Four query heads over two KV heads, in a spelling of its own."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.spelling = spelling
        self.embed = nn.Embedding(64, 32)
        self.q, self.k, self.v = nn.Linear(32, 64), nn.Linear(32, 32), nn.Linear(32, 32)
        self.head = nn.Linear(64, 64)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        q, k, v = (p(x).unflatten(-1, (-1, 16)).transpose(1, 2) for p in (self.q, self.k, self.v))
        options: dict = {"is_causal": True}
        if "mask" in self.spelling:
            place = position_ids[0]
            options = {"attn_mask": place[:, None] >= place[None, :]}
        if "enable_gqa" in self.spelling:
            options["enable_gqa"] = True
        elif "repeat_interleave" in self.spelling:
            k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
        else:
            k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for t in (k, v))
        out = nn.functional.scaled_dot_product_attention(q, k, v, **options)
        return self.head(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    "spelling",
    ["enable_gqa", "enable_gqa, mask", "repeat_interleave", "repeat_interleave, mask", "expand"],
)
def test_repeated_heads_are_one(spelling: str) -> None:
    """However keys are repeated for the query heads of their group, the operator has them once."""
    model = Grouped(spelling)
    found = FindAttention(table_size=64)(capture(model)).graph
    (call,) = found.calls(torch.ops.lcc.attention.default)
    assert [shape(node)[2] for node in call.args[:3]] == [4, 2, 2]
    ids = torch.randint(0, 64, (1, 33), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(33)[None]
    with torch.no_grad():
        torch.testing.assert_close(found.module(ids, positions)[0], model(ids, positions))
