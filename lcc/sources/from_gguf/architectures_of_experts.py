"""Rows of the table of architectures: mixtures of experts."""

from __future__ import annotations

from lcc.sources.from_gguf import irregular, irregular_experts
from lcc.sources.from_gguf.architecture import (
    ATTENTION,
    BIASES,
    DECODER,
    ENDS,
    EXPERTS,
    GATED,
    NORMS,
    QK_NORMS,
    RMS,
    ROTATED_PAIRS,
    Architecture,
    Names,
    in_layers,
)
from lcc.sources.from_gguf.layouts import (
    Layout,
    expert_columns,
    gate_and_up,
    gates_interleaved,
    latent_rows,
    one_row,
)

ROUTED: dict[str, Layout] = {"model.layers.*.mlp.experts.gate_up_proj": gate_and_up}
COUNTS = {"expert_used_count": "num_experts_per_tok"}
DEEP = {
    **RMS,
    **COUNTS,
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_count": "n_routed_experts",
    "expert_shared_count": "n_shared_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
}
SHARED = {
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
SHARED_ONE = {
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
LATENT: Names = {
    "self_attn.q_proj": "attn_q",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": ("attn_k_b.weight", "attn_v_b.weight"),
    "self_attn.o_proj": "attn_output",
}
CORRECTION = {"mlp.gate.e_score_correction_bias": "exp_probs_b.bias"}

EXPERT_ARCHITECTURES: dict[str, Architecture] = {
    # Mixtral has no name of its own: a file of architecture llama that counts experts.
    "llama of experts": Architecture(
        model_type="mixtral",
        tensors={**DECODER, **in_layers(EXPERTS)},
        fields=RMS,
        layouts={**ROTATED_PAIRS, **ROUTED},
    ),
    "qwen2moe": Architecture(
        model_type="qwen2_moe",
        tensors={**DECODER, **in_layers({**EXPERTS, **SHARED_ONE})},
        fields={
            **RMS,
            **COUNTS,
            "expert_count": "num_experts",
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
        },
        layouts={**ROUTED, "model.layers.*.mlp.shared_expert_gate": one_row},
        also={"norm_topk_prob": False, "use_sliding_window": False},
    ),
    "qwen3moe": Architecture(
        model_type="qwen3_moe",
        tensors={**DECODER, **in_layers({**QK_NORMS, **EXPERTS})},
        fields={
            **RMS,
            **COUNTS,
            "expert_count": "num_experts",
            "expert_feed_forward_length": "moe_intermediate_size",
        },
        layouts=ROUTED,
        flags=BIASES,
        also={"norm_topk_prob": True, "use_sliding_window": False},
    ),
    "olmoe": Architecture(
        model_type="olmoe",
        tensors={**DECODER, **in_layers({**QK_NORMS, **EXPERTS})},
        fields={
            **RMS,
            **COUNTS,
            "expert_count": "num_experts",
            "attention.clamp_kqv": "clip_qkv",
        },
        layouts=ROUTED,
        also={"norm_topk_prob": False},
        adapt=irregular.olmo,
    ),
    "granitemoe": Architecture(
        model_type="granitemoe",
        tensors={
            **ENDS,
            **in_layers(
                {
                    **ATTENTION,
                    **NORMS,
                    "block_sparse_moe.router": "ffn_gate_inp",
                    "block_sparse_moe.experts.gate_up_proj": EXPERTS["mlp.experts.gate_up_proj"],
                    "block_sparse_moe.experts.down_proj": EXPERTS["mlp.experts.down_proj"],
                }
            ),
        },
        fields={
            **RMS,
            **COUNTS,
            "expert_count": "num_local_experts",
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        },
        layouts={
            **ROTATED_PAIRS,
            "model.layers.*.block_sparse_moe.experts.gate_up_proj": gate_and_up,
        },
        flags={"attention_bias": "blk.0.attn_q.bias"},
        adapt=irregular.granite,
    ),
    "deepseek2": Architecture(
        model_type="deepseek_v3",
        tensors={
            **ENDS,
            **in_layers({**LATENT, **GATED, **NORMS, **EXPERTS, **SHARED, **CORRECTION}),
        },
        fields={
            **DEEP,
            "attention.q_lora_rank": "q_lora_rank",
            "attention.kv_lora_rank": "kv_lora_rank",
        },
        layouts={**ROUTED, "model.layers.*.self_attn.kv_b_proj": latent_rows},
        instead=in_layers({"self_attn.kv_b_proj": "attn_kv_b"}),
        heads=irregular_experts.latent_heads,
        adapt=irregular_experts.deepseek,
    ),
    "glm4moe": Architecture(
        model_type="glm4_moe",
        tensors={
            **DECODER,
            **in_layers({**QK_NORMS, **EXPERTS, **SHARED, **CORRECTION}),
            **in_layers({"post_attention_layernorm": "post_attention_norm"}),
        },
        fields=DEEP,
        layouts=ROUTED,
        flags={**BIASES, "use_qk_norm": "blk.0.attn_q_norm.weight"},
        partial=True,
        adapt=irregular_experts.glm4moe,
    ),
    "dots1": Architecture(
        model_type="dots1",
        tensors={
            **DECODER,
            **in_layers({**QK_NORMS, **EXPERTS, **SHARED, **CORRECTION}),
        },
        fields=DEEP,
        layouts=ROUTED,
        flags=BIASES,
        adapt=irregular_experts.dots1,
    ),
    "minimax-m2": Architecture(
        model_type="minimax_m2",
        tensors={
            **DECODER,
            **in_layers({**QK_NORMS, **EXPERTS, "mlp.e_score_correction_bias": "exp_probs_b.bias"}),
        },
        fields={**RMS, **COUNTS, "expert_count": "num_local_experts"},
        layouts=ROUTED,
        partial=True,
        adapt=irregular_experts.minimax,
    ),
    "gpt-oss": Architecture(
        model_type="gpt_oss",
        tensors={
            **ENDS,
            **in_layers(
                {
                    **ATTENTION,
                    "input_layernorm": "attn_norm",
                    "post_attention_layernorm": "post_attention_norm",
                    "self_attn.sinks": "attn_sinks.weight",
                    "mlp.router": "ffn_gate_inp",
                    "mlp.experts.gate_up_proj": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
                    "mlp.experts.gate_up_proj_bias": ("ffn_gate_exps.bias", "ffn_up_exps.bias"),
                    "mlp.experts.down_proj": "ffn_down_exps.weight",
                    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
                }
            ),
        },
        fields={
            **RMS,
            **COUNTS,
            "expert_count": "num_local_experts",
            "attention.sliding_window": "sliding_window",
        },
        layouts={
            "model.layers.*.mlp.experts.gate_up_proj": gates_interleaved,
            "model.layers.*.mlp.experts.gate_up_proj_bias": gates_interleaved,
            "model.layers.*.mlp.experts.down_proj": expert_columns,
        },
        adapt=irregular_experts.gpt_oss,
    ),
}
