"""A plain `nn.Module`, no Hugging Face class: anything that maps ids and positions to logits.

python examples/04_plain_module.py OUT.lcc
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig
from lcc.sources.models import LoadedModel
from lcc.testing.tiny import tiny_tokenizer


class Decoder(nn.Module):
    """One layer of causal attention with 4 heads of 16, rotated by position, over byte tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(260, 64)
        self.qkv, self.out = nn.Linear(64, 192, bias=False), nn.Linear(64, 260, bias=False)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """input_ids, position_ids [1, Q] int64 -> logits [1, Q, 260]."""
        x = self.embedding(input_ids)
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)  # [1, 4, Q, 16]
        angle = position_ids[:, None, :, None] * 10_000 ** (-torch.arange(8) / 8)  # [1, 1, Q, 8]
        cos, sin = (torch.cat([t, t], dim=-1) for t in (angle.cos(), angle.sin()))
        q, k = (t * cos + torch.cat([-t[..., 8:], t[..., :8]], -1) * sin for t in (q, k))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(x + attended.transpose(1, 2).flatten(2))


def main() -> None:
    """Compile it, and read a text far longer than its cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    options = parser.parse_args()

    torch.manual_seed(0)
    files = {"tokenizer.json": tiny_tokenizer().to_str().encode()}
    model = LoadedModel(module=Decoder().eval(), name="decoder", architecture="plain", files=files)
    cache = CacheConfig(capacity=256, budget=128, chunk_size=32, catalyst_size=80, recent_size=16)
    compile_model(model, options.output, CompileConfig(cache=cache))

    session = lcc.runtime.open(options.output)
    session.feed("All work and no play makes Jack a dull boy. " * 100)
    print(f"{session.tokens} tokens read, {session.used} of {session.capacity} entries held")


if __name__ == "__main__":
    main()
