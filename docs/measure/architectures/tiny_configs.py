"""A tiny model of every text decoder that transformers maps for causal language modelling.

Sizes are set by the names that configurations use for them; what an architecture needs beside that,
and the traits that a variant is here for, stand in `MORE` and `VARIANTS`.
"""

from typing import Any

import torch
from torch import nn

HIDDEN, VOCABULARY, POSITIONS, LAYERS = 64, 256, 512, 2

# Encoders with a head, decoders of encoder-decoders, speech, vision.
NO_TEXT_DECODER = frozenset(
    """bart bert bert-generation big_bird bigbird_pegasus blenderbot blenderbot-small blt camembert
    data2vec-text electra emu3 ernie fuyu gemma4_assistant gemma4_unified
    gemma4_unified_assistant git got_ocr2 marian mbart megatron-bert mllama moshi
    moss_transcribe_diarize musicgen musicgen_melody mvp pegasus phi4_multimodal plbart prophetnet
    reformer rembert roberta roberta-prelayernorm roc_bert roformer trocr whisper xlm xlm-roberta
    xlm-roberta-xl xlnet xmod""".split()
)
# Class and configuration are those of another row.
REPEATED = frozenset("dots3_note gpt-sw3 gpt_neox_japanese internlm3 iquestcoder".split())


def _named(value: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


SIZES: dict[str, Any] = {
    **_named(VOCABULARY, "vocab_size vocab_size_per_layer_input"),
    **_named(
        HIDDEN,
        "attention_hidden_size d_model dim embedding_dim hidden_size lru_width n_embd "
        "word_embed_proj_dim",
    ),
    **_named(
        96,
        "d_ff d_inner dff dim_ff ffn_dim ffn_hidden_size intermediate_size n_inner "
        "prefix_dense_intermediate_size",
    ),
    **_named(
        48,
        "moe_intermediate_size moe_shared_expert_intermediate_size "
        "shared_expert_intermediate_size shared_intermediate_size",
    ),
    **_named(
        4,
        "attention_heads decoder_attention_heads index_n_heads n_head n_heads num_attention_heads "
        "num_heads",
    ),
    **_named(2, "num_key_value_heads num_kv_heads"),
    **_named(
        16,
        "attention_chunk_size attention_head_dim dim_head head_dim index_head_dim "
        "index_topk kv_channels qk_nope_head_dim query_pre_attn_scalar v_head_dim",
    ),
    **_named(
        POSITIONS,
        "context_length max_position_embeddings max_seq_len max_sequence_length model_max_length "
        "n_ctx n_positions",
    ),
    **_named(4, "moe_num_experts n_routed_experts num_experts num_local_experts"),
    **_named(2, "moe_k moe_topk num_experts_per_tok num_experts_per_token top_k_experts"),
    **_named(
        1,
        "first_k_dense_replace moe_num_shared_experts n_group n_shared_experts num_dense_layers "
        "num_expert_group num_shared_experts topk_group",
    ),
    **{"q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_head_dim": 24},
    **_named(
        8,
        "attention_window_size laurel_rank local_attention mamba_dt_rank mamba_n_heads "
        "mamba_num_heads rotary_dim sliding_window sliding_window_size window_size",
    ),
    **_named(
        16,
        "chunk_size hidden_size_per_layer_input linear_head_dim linear_key_head_dim "
        "linear_value_head_dim mamba_chunk_size mamba_d_head mamba_d_state mamba_head_dim "
        "ssm_state_size state_size",
    ),
    **_named(1, "mamba_n_groups mamba_ngroups n_groups"),
    **{"mamba_d_conv": 4, "mamba_expand": 2, "mamba_d_ssm": 128, "n_mamba_heads": 2},
    **{"time_step_rank": 8, "linear_num_key_heads": 2},
    **_named(4, "linear_num_heads linear_num_value_heads"),
    **{"num_kv_shared_layers": 0, "original_max_position_embeddings": 64, "keep_window_size": 2048},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
_LEFT_WHERE_NONE = "head_dim kv_channels moe_intermediate_size num_experts top_k_experts".split()
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

_WINDOWS = ["sliding_attention", "full_attention"] * 2
_CONV = ["conv", "full_attention"] * 2
_GRANITE = {
    "logits_scaling": 4.0,
    "residual_multiplier": 0.5,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.1,
}
MORE: dict[str, dict[str, Any]] = {
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [1, 3]},
    "cohere": {"use_qk_norm": True},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "deepseek_v2": {"num_key_value_heads": 4, "topk_method": "greedy", "head_dim": 8},
    "ernie4_5_moe": {"moe_layer_start_index": 1, "moe_layer_end_index": 1},
    "exaone4": {"num_hidden_layers": 4, "sliding_window_pattern": 4},
    "falcon": {"new_decoder_architecture": True, "bias": False},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "intermediate_size": 96,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        "num_kv_shared_layers": 2,
        "layer_types": _WINDOWS,
    },
    "gemma4_text": {
        "num_hidden_layers": 4,
        "layer_types": _WINDOWS,
        "final_logit_softcapping": 30.0,
    },
    "gemma4_unified_text": {"num_hidden_layers": 4, "layer_types": _WINDOWS},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "gpt_oss": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 64,
        }
    },
    **dict.fromkeys(("granite", "granitemoe", "granitemoeshared"), _GRANITE),
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
        "position_embedding_type": "rope",
    },
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 4},
    "jamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "lfm2": {"num_hidden_layers": 4, "layer_types": _CONV},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": _CONV},
    "longcat_flash": {"num_key_value_heads": 4},
    "mamba2": {"num_heads": 8, "head_dim": 16, "expand": 2},
    "ministral": {"head_dim": 16},
    "nemotron_h": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "attention", "moe", "attention"],
    },
    "persimmon": {"qk_layernorm": True},
    "phi": {"qk_layernorm": False},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "smollm3": {"num_hidden_layers": 2, "no_rope_layers": [1, 0]},
    "stablelm": {"qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True},
    "xlstm": {"num_blocks": 2, "qk_dim_factor": 0.5},
    "zamba": {
        "num_key_value_heads": 4,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "zamba2": {
        "num_key_value_heads": 4,
        "mamba_headdim": 16,
        "n_mamba_heads": 8,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
}

_PLAIN = {"rope_theta": 10000.0}
_YARN = {**_PLAIN, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_LONGROPE = {
    **_PLAIN,
    "rope_type": "longrope",
    "factor": 2.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 256,
}
_LLAMA3 = {
    **_PLAIN,
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
# variant -> the architecture it is of, and what is different
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "deepseek_v2+lite": ("deepseek_v2", {"q_lora_rank": None}),
    "deepseek_v3+v=qk": ("deepseek_v3", {"v_head_dim": 24}),
    "deepseek_v3+yarn": (
        "deepseek_v3",
        {"rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    ),
    "doge+moe": ("doge", {"is_moe": True, "num_experts": 16}),
    "falcon+alibi": ("falcon", {"alibi": True}),
    "falcon+mq": ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    "gemma4_text+k_eq_v": (
        "gemma4_text",
        {"attention_k_eq_v": True, "num_global_key_value_heads": 2, "global_head_dim": 32},
    ),
    "gemma4_text+kv_shared": ("gemma4_text", {"num_kv_shared_layers": 2}),
    "gemma4_text+moe": (
        "gemma4_text",
        {
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 48,
        },
    ),
    "gpt2+scale_inverse": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    ),
    "granitemoehybrid+dense": (
        "granitemoehybrid",
        {"layer_types": ["full_attention"] * 4, "num_local_experts": 0},
    ),
    "jamba+dense": ("jamba", {"num_experts": 1}),
    "llama+dynamic": (
        "llama",
        {"rope_parameters": {**_PLAIN, "rope_type": "dynamic", "factor": 2.0}},
    ),
    "llama+linear": (
        "llama",
        {"rope_parameters": {**_PLAIN, "rope_type": "linear", "factor": 2.0}},
    ),
    "llama+llama3": ("llama", {"rope_parameters": _LLAMA3}),
    "llama+longrope": ("llama", {"rope_parameters": _LONGROPE}),
    "llama+long_window": ("llama", {"max_position_embeddings": 131072}),
    "llama+yarn": ("llama", {"rope_parameters": _YARN}),
    "llama4_text+allrope": ("llama4_text", {"num_hidden_layers": 2, "no_rope_layers": [1, 1]}),
    "llama4_text+dense": (
        "llama4_text",
        {
            "attn_temperature_tuning": False,
            "attention_chunk_size": 8192,
            "max_position_embeddings": 131072,
            "num_hidden_layers": 2,
            "no_rope_layers": [1, 0],
            "moe_layers": [],
        },
    ),
    "mistral+no_window": ("mistral", {"sliding_window": None}),
    "mistral+window4096": ("mistral", {"sliding_window": 4096, "max_position_embeddings": 32768}),
    "nemotron_h+mlp": (
        "nemotron_h",
        {"layers_block_type": ["mamba", "attention", "mlp", "attention"]},
    ),
    "opt+350m": ("opt", {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "phi3+longrope": (
        "phi3",
        {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 256},
    ),
    "phi3+partial": ("phi3", {"partial_rotary_factor": 0.5}),
    "phi3+window262144": ("phi3", {"sliding_window": 262144, "max_position_embeddings": 131072}),
    "qwen3+yarn": ("qwen3", {"rope_parameters": _YARN}),
    "qwen3_moe+dense1": ("qwen3_moe", {"mlp_only_layers": [0]}),
}


def architectures() -> list[str]:
    """The text decoders of the installed transformers, without variants."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    return [name for name in KNOWN if name not in NO_TEXT_DECODER | REPEATED]


def build(name: str) -> nn.Module:
    """The tiny model of an architecture or a variant: the same weights every time, float32."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(name), dtype=torch.float32).float().eval()
    for what, parameter in model.named_parameters():
        if not what.endswith(("A_log", "dt_bias")):  # what must have a sign, or a size
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    for what, buffer in model.named_buffers():
        if "correction_bias" in what or what.endswith("expert_bias"):
            buffer.data.add_(torch.randn_like(buffer) * 0.1)
    return model.requires_grad_(False)


def _config(name: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, more = VARIANTS.get(name, (name, {}))
    made_of = CONFIG_MAPPING[kind]
    parts = dict(getattr(made_of, "sub_configs", None) or {})
    if "text_config" not in parts:
        return made_of(**_fields(made_of, kind, more))
    seen = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "depth": 1}
    seen |= {"num_attention_heads": 2, "num_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    seen |= {"image_size": 28, "patch_size": 14, "out_hidden_size": HIDDEN}
    given: dict[str, Any] = {}
    for part, of in parts.items():
        if part == "text_config":
            given[part] = _fields(of, of.model_type, {})
        elif isinstance(of, type) and of.__name__ != "AutoConfig":
            given[part] = of(**{k: v for k, v in seen.items() if k in vars(of())}).to_dict()
    return made_of(**given)


def _fields(made_of: Any, kind: str, more: dict[str, Any]) -> dict[str, Any]:
    """What is given to a configuration: sizes by their names, lists of layers made shorter."""
    import transformers

    common = vars(transformers.PretrainedConfig())
    fields = {
        name: value
        for name, value in vars(made_of()).items()
        if not name.startswith("_") and (name not in common or name in SIZES)
    }
    given = {
        name: size
        for name, size in SIZES.items()
        if name in fields and not isinstance(fields[name], list | tuple)
    }
    for name in _LEFT_WHERE_NONE:
        if fields.get(name, 0) is None:
            del given[name]
    more = MORE.get(kind, {}) | more
    depth = next((name for name in _DEPTHS if name in fields), None)
    if depth is not None:
        lists = {
            name: list(value)
            for name, value in fields.items()
            if isinstance(value, list | tuple) and len(value) == fields[depth] > 3
        }
        mixed = any(len({str(each) for each in value}) > 1 for value in lists.values())
        given[depth] = more.get(depth, 4 if mixed else LAYERS)
        for name, value in lists.items():
            kinds = list(dict.fromkeys(value))
            given[name] = [kinds[i % len(kinds)] for i in range(given[depth])]
    rope = fields.get("rope_parameters")
    if isinstance(rope, dict) and "original_max_position_embeddings" in rope:
        given["rope_parameters"] = {**rope, "original_max_position_embeddings": 64}
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        given[name] = SIZES[name]
    if "qk_rope_head_dim" in given:  # latent attention: a key for all heads
        given |= {name: 8 for name in ("head_dim",) if name in fields}
        given |= {name: 4 for name in ("num_key_value_heads",) if name in fields}
    return given | more
