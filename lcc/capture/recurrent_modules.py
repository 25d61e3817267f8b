"""Recurrences that modules of transformers write out themselves, as operators.

Each function takes the place of the `forward` of one class, and computes what that computes of a
text that is read from its beginning, without a cache.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcc.capture.recurrent_operators import attend, convolve, shifted


def forward_of(module: nn.Module) -> Callable | None:
    """What takes the place of a module's forward; None = it stays."""
    return _FORWARDS.get(type(module).__name__)


def _lightning(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """MiniMaxLightningAttention: every head forgets at a rate of its own."""
    heads, rows = self.num_attention_heads, hidden_states.shape[:2]
    qkv = self.act_fn(self.qkv_proj(hidden_states)).reshape(*rows, heads, 3 * self.head_dim)
    decay = (-self.slope_rate).view(1, 1, heads).expand(*rows, heads)
    query, key, value = qkv.split(self.head_dim, dim=3)
    out = self.norm(attend(query, key, value, decay).flatten(2))
    out = torch.sigmoid(self.output_gate(hidden_states)) * out
    return self.out_proj(out), None


def _griffin(
    self: Any, input_states: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """RecurrentGemmaRecurrentBlock: a short convolution before the recurrence."""
    conv, x = self.conv_1d, self.linear_x(input_states)
    x = self.rg_lru(convolve(x, conv.weight.squeeze(1), conv.bias), position_ids)
    return self.linear_out(x * self.act_fn(self.linear_y(input_states))), None


def _rg_lru(self: Any, activations: Tensor, position_ids: Tensor) -> Tensor:
    """RecurrentGemmaRglru (Griffin, arXiv 2402.19427): every channel is a head of one number."""
    heads = activations.unflatten(2, (self.num_attention_heads, self.block_width))

    def gate(weight: Tensor, bias: Tensor) -> Tensor:
        return torch.sigmoid((heads[..., None, :] @ weight).squeeze(-2) + bias).flatten(2)

    of_input = gate(self.input_gate_weight, self.input_gate_bias)
    forget = gate(self.recurrent_gate_weight, self.recurrent_gate_bias)
    decay = -8.0 * forget * functional.softplus(self.recurrent_param)
    first = position_ids[:, :, None] == 0  # a text begins: what comes in is not scaled
    scale = torch.where(first, 1.0, torch.sqrt(1 - torch.exp(2 * decay)))
    one = activations.new_ones(1, 1, 1, 1).expand(1, activations.shape[1], 1, 1)
    value = (activations * of_input * scale)[..., None]
    return attend(one, one, value, decay[..., None]).squeeze(-1)


def _xlstm(
    self: Any, query: Tensor, key: Tensor, value: Tensor, igate: Tensor, fgate: Tensor, **kw: Any
) -> tuple[Tensor, None]:
    """XLSTMBackend (mLSTM, arXiv 2405.04517): one more value sums up the keys.

    Without the running maximum that keeps exp(igate) small: xLSTM 7B caps gates at 15, and what
    they are divided by is then at least 1.
    """
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    gates = igate.transpose(1, 2), functional.logsigmoid(fgate).transpose(1, 2)
    key, scale = key * gates[0].exp()[..., None], query.shape[-1] ** -0.5
    value = torch.cat((value, torch.ones_like(value[..., :1])), dim=-1)
    out = attend(query, key, value, gates[1], scale=scale)
    return (out[..., :-1] / out[..., -1:].abs().clamp(min=1.0)).transpose(1, 2), None


def _rwkv_attention(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """RwkvSelfAttention (RWKV 4, arXiv 2305.13048): a token counts for itself by a bonus.

    Without the running maximum of keys: exp of a key must be a float32, so keys are below 88.
    """
    before = shifted(hidden)
    key, value, receptance = (
        project(hidden * mix + before * (1 - mix))
        for project, mix in (
            (self.key, self.time_mix_key),
            (self.value, self.time_mix_value),
            (self.receptance, self.time_mix_receptance),
        )
    )
    pair = torch.stack((key.exp() * value, key.exp()), dim=3)  # [1, Q, C, 2]
    decay = (-self.time_decay.exp()).view(1, 1, -1).expand(*key.shape)
    one = key.new_ones(1, 1, 1, 1).expand(1, key.shape[1], 1, 1)
    seen = attend(one, one, shifted(pair.flatten(2)).unflatten(2, (-1, 2)), decay)
    bonus = (self.time_first + key).exp()
    out = (seen[..., 0] + bonus * value) / (seen[..., 1] + bonus)
    return self.output(torch.sigmoid(receptance) * out), None


def _rwkv_feed_forward(self: Any, hidden: Tensor, *args: Any, **kw: Any) -> tuple[Tensor, None]:
    """RwkvFeedForward: mixes each token with the one before."""
    before = shifted(hidden)
    key = hidden * self.time_mix_key + before * (1 - self.time_mix_key)
    gate = hidden * self.time_mix_receptance + before * (1 - self.time_mix_receptance)
    value = self.value(torch.square(torch.relu(self.key(key))))
    return torch.sigmoid(self.receptance(gate)) * value, None


_FORWARDS: dict[str, Callable] = {
    "MiniMaxLightningAttention": _lightning,
    "RecurrentGemmaRecurrentBlock": _griffin,
    "RecurrentGemmaRglru": _rg_lru,
    "xLSTMBackend": _xlstm,
    "RwkvSelfAttention": _rwkv_attention,
    "RwkvFeedForward": _rwkv_feed_forward,
}
