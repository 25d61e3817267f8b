"""Rows of the table of architectures: those whose modules are not named as Llama's are."""

from __future__ import annotations

from lcc.sources.from_gguf import irregular
from lcc.sources.from_gguf.architecture import (
    ATTENTION,
    DECODER,
    ENDS,
    NORMS,
    SIZES,
    Architecture,
    in_layers,
    less_one,
)
from lcc.sources.from_gguf.layouts import falcon_rows, neox_rows, transposed

GPT_SIZES = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
GPT_LAYER = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
GPT = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    **in_layers(GPT_LAYER, "transformer.h"),
}
BLOCK = {
    "input_layernorm": "attn_norm",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
CONVOLUTIONS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")

OLD_ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(
        model_type="gpt2",
        tensors=GPT,
        fields=GPT_SIZES,
        layouts={f"transformer.h.*.{name}": transposed for name in CONVOLUTIONS},
        adapt=irregular.all_heads,
    ),
    "starcoder": Architecture(
        model_type="gpt_bigcode", tensors=GPT, fields=GPT_SIZES, adapt=irregular.starcoder
    ),
    "starcoder2": Architecture(
        model_type="starcoder2",
        tensors={
            **ENDS,
            **in_layers({**ATTENTION, **NORMS, "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}),
        },
        fields={**SIZES, "attention.layer_norm_epsilon": "norm_epsilon"},
        flags={"use_bias": "blk.0.attn_q.bias"},
    ),
    "stablelm": Architecture(
        model_type="stablelm",
        tensors=DECODER,
        fields={**SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"},
        flags={"use_qkv_bias": "blk.0.attn_q.bias"},
        partial=True,
        adapt=irregular.stablelm,
    ),
    "nemotron": Architecture(
        model_type="nemotron",
        tensors={
            **ENDS,
            **in_layers(
                {**ATTENTION, **NORMS, "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
            ),
        },
        fields={**SIZES, "attention.layer_norm_epsilon": "norm_eps"},
        layouts={
            f"{name}.weight": layout
            for name, layout in less_one("input_layernorm", "post_attention_layernorm").items()
        },
        flags={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
        partial=True,
    ),
    "falcon": Architecture(
        model_type="falcon",
        tensors={
            "transformer.word_embeddings": "token_embd",
            "transformer.ln_f": "output_norm",
            "lm_head": "output",
            **in_layers(
                {
                    **BLOCK,
                    "self_attention.query_key_value": "attn_qkv",
                    "self_attention.dense": "attn_output",
                    "ln_attn": "attn_norm_2",
                    "ln_mlp": "attn_norm",
                },
                "transformer.h",
            ),
        },
        fields={
            "context_length": "max_position_embeddings",
            "embedding_length": "hidden_size",
            "block_count": "num_hidden_layers",
            "feed_forward_length": "ffn_hidden_size",
            "attention.head_count": "num_attention_heads",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        layouts={"transformer.h.*.self_attention.query_key_value": falcon_rows},
        adapt=irregular.falcon,
    ),
    "bloom": Architecture(
        model_type="bloom",
        tensors={
            "transformer.word_embeddings": "token_embd",
            "transformer.word_embeddings_layernorm": "token_embd_norm",
            "transformer.ln_f": "output_norm",
            "lm_head": "output",
            **in_layers(
                {
                    **BLOCK,
                    "post_attention_layernorm": "ffn_norm",
                    "self_attention.query_key_value": "attn_qkv",
                    "self_attention.dense": "attn_output",
                },
                "transformer.h",
            ),
        },
        fields={
            "embedding_length": "hidden_size",
            "block_count": "n_layer",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        layouts={"transformer.h.*.self_attention.query_key_value": neox_rows},
        adapt=irregular.bloom,
    ),
    "gptneox": Architecture(
        model_type="gpt_neox",
        tensors={
            "gpt_neox.embed_in": "token_embd",
            "gpt_neox.final_layer_norm": "output_norm",
            "lm_head": "output",
            **in_layers(
                {
                    **BLOCK,
                    "post_attention_layernorm": "ffn_norm",
                    "attention.query_key_value": "attn_qkv",
                    "attention.dense": "attn_output",
                },
                "gpt_neox.layers",
            ),
        },
        fields={**SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"},
        layouts={"gpt_neox.layers.*.attention.query_key_value": neox_rows},
        flags={"attention_bias": "blk.0.attn_qkv.bias"},
        partial=True,
        adapt=irregular.gptneox,
    ),
}
