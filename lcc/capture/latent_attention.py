"""Multi-head latent attention (DeepSeek): what is cached is the latent vector, not what it becomes.

    the model's     latent -> keys and values of every head; q . k, then shares times values
    captured        q of every head times its key matrix: a query for latents
                    latent, and the rotated channels that all heads share -> one KV head
                    shares times latents -> the value matrix of every head

Both are the same numbers, for a product may be taken in any order: q (W c) = (q W) c. The value is
a part of the key, which `ShareLatents` makes use of: an entry of DeepSeek V3 has 576 numbers then
instead of 128 * (192 + 128), and a policy ranks it for all heads at once.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
_SIZES = ("num_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


@contextlib.contextmanager
def latents_as_entries(model: nn.Module) -> Iterator[int]:
    """Let every latent attention attend over latents; yields how many there are."""
    changed: list[tuple[Any, dict[str, Any], dict[str, Any]]] = []
    try:
        for module in list(model.modules()):
            if _is_latent(module):
                changed.append((module, dict(module.__dict__), dict(module._modules)))
                _attend_over_latents(module)
        yield len(changed)
    finally:
        for module, fields, children in changed:
            module.__dict__.clear()
            module.__dict__.update(fields)
            module._modules = children


class LatentQueries(nn.Module):
    """The projection of queries, and behind it each head's key matrix.

    x           [1, Q, h]
    returns     [1, Q, H * (R + r)]     of each head the query for latents, then what is rotated
    """

    def __init__(self, project: nn.Module, key: Tensor, rotated: int) -> None:
        """`key` [H, n, R]: what a latent's key is made with; `rotated`: channels r of a query."""
        super().__init__()
        self.project, self.rotated = project, rotated
        self.key: Tensor
        self.register_buffer("key", key)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        heads, plain = self.key.shape[:2]
        queries = self.project(x).unflatten(-1, (heads, plain + self.rotated))
        latent = queries[..., :plain].transpose(1, 2) @ self.key  # [1, H, Q, R]
        return torch.cat((latent.transpose(1, 2), queries[..., plain:]), dim=-1).flatten(2)


class LatentOutput(nn.Module):
    """Each head's value matrix, and behind it the projection of what is attended.

    x           [1, Q, H * (r + R)]     of each head r channels that mean nothing, and a latent
    """

    def __init__(self, project: nn.Module, value: Tensor) -> None:
        """`value` [H, R, v]: what a latent's value is made with."""
        super().__init__()
        self.project = project
        self.value: Tensor
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        heads, rank = self.value.shape[:2]
        latent = x.unflatten(-1, (heads, -1))[..., -rank:].transpose(1, 2)  # [1, H, Q, R]
        return self.project((latent @ self.value).transpose(1, 2).flatten(2))


def _expand_kv(latent: Tensor, rotated: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [1, 1, Q, R + r] of one KV head, in the place of those of every head.

    Rotated channels come first in what `FindAttention` makes of the keys, and so in the values.
    """
    nothing = latent.new_zeros(*latent.shape[:-1], rotated.shape[-1])
    return torch.cat((latent, rotated), dim=-1), torch.cat((nothing, latent), dim=-1)


def _attend_over_latents(module: Any) -> None:
    key, value = _matrices(module)
    name = "q_proj" if getattr(module, "q_proj", None) is not None else "q_b_proj"
    queries = LatentQueries(getattr(module, name), key.contiguous(), module.qk_rope_head_dim)
    setattr(module, name, queries)
    module.o_proj = LatentOutput(module.o_proj, value.transpose(1, 2).contiguous())
    module.expand_kv = _expand_kv
    module.qk_nope_head_dim = module.kv_lora_rank
    module.qk_head_dim = module.kv_lora_rank + module.qk_rope_head_dim
    module.num_key_value_groups = module.num_heads


def _matrices(module: Any) -> tuple[Tensor, Tensor]:
    """[H, n, R] and [H, v, R]: what keys and values of each head are made with."""
    weight = module.kv_b_proj.weight.detach()
    rows = weight.view(module.num_heads, -1, module.kv_lora_rank)
    key, value = rows.split([module.qk_nope_head_dim, module.v_head_dim], dim=1)
    return key, value


def _is_latent(module: Any) -> bool:
    """Whether a module expands latents as DeepSeek's does: told by what it makes of some."""
    parts = ("expand_kv", "kv_b_proj", "o_proj")
    if not all(hasattr(module, name) for name in (*parts, *_SIZES)):
        return False
    if module.kv_b_proj.bias is not None or module.kv_b_proj.weight.is_meta:
        return False
    draw = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 1, 3, module.kv_lora_rank, generator=draw)
    rotated = torch.randn(1, 1, 3, module.qk_rope_head_dim, generator=draw)
    with torch.no_grad():
        keys, values = module.expand_kv(latent, rotated)
        key, value = (latent @ each.transpose(1, 2) for each in _matrices(module))  # [1, H, 3, ..]
        wanted = torch.cat((key, rotated.expand(1, module.num_heads, 3, -1)), dim=-1)
        same = keys.shape == wanted.shape and torch.allclose(keys, wanted, atol=TOLERANCE)
        return same and torch.allclose(values, value, atol=TOLERANCE)
