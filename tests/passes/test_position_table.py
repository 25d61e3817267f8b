"""Tables that a model looks positions up in, and what they forbid."""

from typing import Any

import pytest
import torch
from torch import nn

from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies import make_policy
from lcc.passes.position_table import position_table
from lcc.passes.specialize import Specialized, Subject, specialize_within_memory
from lcc.testing.tiny import tiny_model

ROWS = 96


class Looking(nn.Module):
    """Angles from tables, spelled in several ways; the tokens' own table is no matter."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.embed = nn.Embedding(64, 8)
        self.register_buffer("table", torch.randn(ROWS, 8))
        self.register_buffer("upright", torch.randn(1, ROWS + 1, 8))

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        places = position_ids[0]
        if self.spelling == "index":
            return x + self.table[position_ids]
        if self.spelling == "second axis":
            return x + self.upright[:, places]
        if self.spelling == "index_select":
            return x + self.table.index_select(0, places)
        if self.spelling == "gather":
            return x + self.table.gather(0, places[:, None].expand(-1, 8))
        return x + position_ids[..., None].float()


@pytest.mark.parametrize(
    ("spelling", "rows"),
    [
        ("index", ROWS),
        ("second axis", ROWS + 1),
        ("index_select", ROWS),
        ("gather", ROWS),
        ("computed", None),
    ],
)
def test_tables_in_every_spelling(spelling: str, rows: int | None) -> None:
    assert position_table(capture(Looking(spelling).eval())) == rows


def test_of_models() -> None:
    assert position_table(capture(tiny_model("gpt2"))) == 512
    assert position_table(capture(tiny_model("llama"))) is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"positions": "absolute"}, "has a table of 512 and a text has no end; compile with"),
        ({"capacity": 1024}, "trained on positions below 512; compile with --capacity 512 or less"),
    ],
)
def test_what_a_table_forbids(sizes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        specialized(**sizes)


def test_within_memory_the_table_bounds_the_capacity() -> None:
    """Whatever is asked for: the largest budget is that of 512 slots."""
    special = specialized(capacity=1024, memory_bytes=1 << 40, fit_budget=True)
    assert special.cache.capacity == 512
    assert special.model.trained_window == 512


def specialized(
    *, memory_bytes: int | None = None, fit_budget: bool = False, **sizes: Any
) -> Specialized:
    """GPT-2 of which nothing is known but its module."""
    sizes = {"capacity": 128, "budget": 64, "chunk_size": 16} | sizes
    cache = CacheConfig(catalyst_size=32, recent_size=8, **sizes)
    config = CompileConfig(cache=cache, memory_bytes=memory_bytes, fit_budget=fit_budget)
    subject = Subject(capture(tiny_model("gpt2")), "tiny", "gpt2")
    return specialize_within_memory(subject, config, make_policy(PolicyConfig(name="knorm")))
