"""What a row of the table of architectures says, and the parts that most rows share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lcc.sources.from_gguf.file import Fields
from lcc.sources.from_gguf.layouts import Layout, key_rows, one_less, query_rows
from lcc.sources.from_gguf.rope import Angles

Names = Mapping[str, "str | tuple[str, ...]"]


@dataclass(frozen=True)
class Source:
    """A file while its configuration is made.

    fields      its metadata; what is taken counts as used
    names       of its tensors
    angles      rotary angles, as far as metadata and tensors say them
    """

    fields: Fields
    names: frozenset[str]
    angles: Angles


Adapt = Callable[[Source, dict[str, Any]], None]
"""Completes a configuration where a table cannot say it; the file, and what is to be changed."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture: GGUF's names and numbers -> those of transformers.

    model_type  of the configuration
    tensors     name in the module, `*` for the layer -> name in the file; several names where one
                tensor of the module is made of them. Without `.weight` and `.bias`, but where only
                one of them is meant
    fields      name in the file, without the architecture's -> name in the configuration
    layouts     name in the module -> how its numbers are arranged; else as they are
    flags       field of the configuration that is true where the file has this tensor
    also        fields of the configuration that no file says
    partial     the file may rotate a share of each head only
    instead     of `tensors`: names in the file where it has not those
    heads       sizes of heads
    adapt       what is left
    """

    model_type: str
    tensors: Names
    fields: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False
    instead: Names = field(default_factory=dict)
    heads: Adapt | None = None
    adapt: Adapt | None = None


def in_layers(names: Names, layers: str = "model.layers") -> Names:
    """Names inside a layer -> names in the module, and in the file."""

    def block(name: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return f"blk.*.{name}" if isinstance(name, str) else tuple(f"blk.*.{n}" for n in name)

    return {f"{layers}.*.{key}": block(name) for key, name in names.items()}


SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
RMS = {**SIZES, "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
ATTENTION: Names = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
QK_NORMS: Names = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
GATED: Names = {
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMS: Names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
NORMS_AFTER: Names = {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
ENDS: Names = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
DECODER: Names = {**ENDS, **in_layers({**ATTENTION, **GATED, **NORMS})}
EXPERTS: Names = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_up_proj": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
    "mlp.experts.down_proj": "ffn_down_exps.weight",
}
ROTATED_PAIRS: Mapping[str, Layout] = {
    "model.layers.*.self_attn.q_proj": query_rows,
    "model.layers.*.self_attn.k_proj": key_rows,
}
BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}


def less_one(*names: str) -> dict[str, Layout]:
    """The layout of norms that multiply by 1 + weight."""
    layers = {f"model.layers.*.{name}": one_less for name in names}
    return {"model.norm": one_less, **layers}
