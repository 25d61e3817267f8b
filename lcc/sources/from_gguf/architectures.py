"""The table of architectures: what GGUF calls a thing, and what transformers calls it."""

from __future__ import annotations

from lcc.sources.from_gguf import irregular
from lcc.sources.from_gguf.architecture import (
    ATTENTION,
    BIASES,
    DECODER,
    ENDS,
    GATED,
    NORMS,
    NORMS_AFTER,
    QK_NORMS,
    RMS,
    ROTATED_PAIRS,
    SIZES,
    Architecture,
    in_layers,
    less_one,
)
from lcc.sources.from_gguf.architectures_of_experts import EXPERT_ARCHITECTURES
from lcc.sources.from_gguf.architectures_of_old import OLD_ARCHITECTURES

LAYER_EPS = {**SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"}
AFTER = {**ENDS, **in_layers({**ATTENTION, **QK_NORMS, **GATED, **NORMS_AFTER})}
AROUND = {
    **ENDS,
    **in_layers(
        {
            **ATTENTION,
            **QK_NORMS,
            **GATED,
            **NORMS_AFTER,
            "input_layernorm": "attn_norm",
            "pre_feedforward_layernorm": "ffn_norm",
        }
    ),
}
FUSED_FFN = {"mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
PLAIN_FFN = {"mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
SCALES = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
GEMMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "self_attn.q_norm",
    "self_attn.k_norm",
)

ARCHITECTURES: dict[str, Architecture] = {
    **EXPERT_ARCHITECTURES,
    **OLD_ARCHITECTURES,
    "llama": Architecture(
        model_type="llama",
        tensors={**DECODER, **EXPERT_ARCHITECTURES["llama of experts"].tensors},
        fields=RMS,
        layouts={**ROTATED_PAIRS, **EXPERT_ARCHITECTURES["llama of experts"].layouts},
        flags=BIASES,
        adapt=irregular.llama,
    ),
    "qwen2": Architecture(
        model_type="qwen2", tensors=DECODER, fields=RMS, also={"use_sliding_window": False}
    ),
    "qwen3": Architecture(
        model_type="qwen3",
        tensors={**DECODER, **in_layers(QK_NORMS)},
        fields=RMS,
        flags=BIASES,
        also={"use_sliding_window": False},
    ),
    "mistral3": Architecture(
        model_type="ministral3",
        tensors=DECODER,
        fields=RMS,
        layouts=ROTATED_PAIRS,
        adapt=irregular.ministral,
    ),
    "smollm3": Architecture(
        model_type="smollm3",
        tensors=DECODER,
        fields=RMS,
        layouts=ROTATED_PAIRS,
        flags=BIASES,
        also={"no_rope_layer_interval": 4, "use_sliding_window": False},
    ),
    "granite": Architecture(
        model_type="granite",
        tensors=DECODER,
        fields={**RMS, **SCALES},
        layouts=ROTATED_PAIRS,
        flags=BIASES,
        adapt=irregular.granite,
    ),
    "arcee": Architecture(
        model_type="arcee",
        tensors={**ENDS, **in_layers({**ATTENTION, **PLAIN_FFN, **NORMS})},
        fields=RMS,
        layouts=ROTATED_PAIRS,
        flags=BIASES,
    ),
    "olmo": Architecture(
        model_type="olmo",
        tensors={**ENDS, **in_layers({**ATTENTION, **GATED})},
        fields={**SIZES, "attention.clamp_kqv": "clip_qkv"},
        layouts=ROTATED_PAIRS,
        adapt=irregular.olmo,
    ),
    "olmo2": Architecture(
        model_type="olmo2", tensors=AFTER, fields=RMS, flags=BIASES, adapt=irregular.olmo2
    ),
    "exaone4": Architecture(
        model_type="exaone4", tensors=AFTER, fields=RMS, adapt=irregular.exaone4
    ),
    "seed_oss": Architecture(
        model_type="seed_oss",
        tensors={**DECODER, **in_layers({"post_attention_layernorm": "post_attention_norm"})},
        fields=RMS,
        flags={**BIASES, "attention_out_bias": "blk.0.attn_output.bias"},
    ),
    "ernie4_5": Architecture(
        model_type="ernie4_5",
        tensors=DECODER,
        fields=RMS,
        flags={"use_bias": "blk.0.attn_q.bias"},
    ),
    "hunyuan-dense": Architecture(
        model_type="hunyuan_v1_dense",
        tensors={
            **DECODER,
            **in_layers(
                {
                    "self_attn.query_layernorm": "attn_q_norm",
                    "self_attn.key_layernorm": "attn_k_norm",
                }
            ),
        },
        fields=RMS,
        flags=BIASES,
    ),
    "glm4": Architecture(
        model_type="glm4",
        tensors={
            **ENDS,
            **in_layers(
                {
                    **ATTENTION,
                    **NORMS,
                    **FUSED_FFN,
                    "post_self_attn_layernorm": "post_attention_norm",
                    "post_mlp_layernorm": "post_ffw_norm",
                }
            ),
        },
        fields=RMS,
        flags=BIASES,
        partial=True,
    ),
    "bitnet": Architecture(
        model_type="bitnet",
        tensors={
            **DECODER,
            **in_layers(
                {
                    "self_attn.attn_sub_norm": "attn_sub_norm",
                    "mlp.ffn_sub_norm": "ffn_sub_norm",
                }
            ),
        },
        fields=RMS,
        flags={"attention_bias": "blk.0.attn_q.bias"},
        adapt=irregular.bitnet,
    ),
    "command-r": Architecture(
        model_type="cohere",
        tensors={**DECODER, **in_layers(QK_NORMS)},
        fields={**LAYER_EPS, "logit_scale": "logit_scale"},
        flags={**BIASES, "use_qk_norm": "blk.0.attn_q_norm.weight"},
    ),
    "cohere2": Architecture(
        model_type="cohere2",
        tensors=DECODER,
        fields={
            **LAYER_EPS,
            "logit_scale": "logit_scale",
            "attention.sliding_window": "sliding_window",
        },
        flags=BIASES,
        adapt=irregular.every_fourth_full,
    ),
    "gemma": Architecture(
        model_type="gemma",
        tensors=DECODER,
        fields=RMS,
        layouts=less_one("input_layernorm", "post_attention_layernorm"),
    ),
    "gemma2": Architecture(
        model_type="gemma2",
        tensors=AROUND,
        fields={**RMS, "attention.sliding_window": "sliding_window"},
        layouts=less_one(*GEMMA_NORMS),
        adapt=irregular.gemma2,
    ),
    "gemma3": Architecture(
        model_type="gemma3_text",
        tensors=AROUND,
        fields={**RMS, "attention.sliding_window": "sliding_window"},
        layouts=less_one(*GEMMA_NORMS),
        adapt=irregular.gemma3,
    ),
    "phi3": Architecture(
        model_type="phi3",
        tensors={
            **ENDS,
            **in_layers(
                {
                    **NORMS,
                    **FUSED_FFN,
                    "self_attn.qkv_proj": "attn_qkv",
                    "self_attn.o_proj": "attn_output",
                }
            ),
        },
        fields=RMS,
        partial=True,
        adapt=irregular.phi3,
    ),
    "phi2": Architecture(
        model_type="phi",
        tensors={
            **ENDS,
            "model.final_layernorm": "output_norm",
            **in_layers(
                {
                    **ATTENTION,
                    "self_attn.dense": "attn_output",
                    "mlp.fc1": "ffn_up",
                    "mlp.fc2": "ffn_down",
                    "input_layernorm": "attn_norm",
                }
            ),
        },
        fields=LAYER_EPS,
        partial=True,
    ),
}
"""`general.architecture` -> its row."""
