"""Tables that a model looks positions up in, and what they forbid."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lcc.capture import capture
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig
from lcc.errors import ConfigError
from lcc.passes.position_table import position_table
from lcc.tiny import save_tiny, tiny_model

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


def test_what_a_table_forbids_is_refused_when_compiling(tmp_path: Path) -> None:
    save_tiny(tmp_path / "gpt2", "gpt2")
    for sizes, message in (
        ({"positions": "absolute"}, "has a table of 512 and a text has no end; compile with"),
        ({"capacity": 1024}, "table of 512 positions; compile with --capacity 512 or less"),
    ):
        sizes = {"capacity": 128, "budget": 64, "chunk_size": 16} | sizes
        cache = CacheConfig(catalyst_size=32, recent_size=8, **sizes)
        with pytest.raises(ConfigError, match=message):
            compile_model(tmp_path / "gpt2", tmp_path / "m.lcc", CompileConfig(cache=cache))
    assert not (tmp_path / "m.lcc").exists()
