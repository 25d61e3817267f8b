"""Metadata of a GGUF file -> a configuration, from the side of transformers' own classes.

Each attribute that a class has is looked up in the file. What differs between architectures is
said here a second time, so that a mistake in one place is seen in the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gguf.constants import Keys

from lcc.errors import ConfigError

MODELS = {
    **{"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen2moe": "qwen2_moe"},
    **{"qwen3moe": "qwen3_moe", "mistral3": "ministral3", "smollm3": "smollm3"},
    **{"granite": "granite", "granitemoe": "granitemoe", "arcee": "arcee", "olmo": "olmo"},
    **{"olmo2": "olmo2", "olmoe": "olmoe", "exaone4": "exaone4", "seed_oss": "seed_oss"},
    **{"ernie4_5": "ernie4_5", "hunyuan-dense": "hunyuan_v1_dense", "glm4": "glm4"},
    **{"bitnet": "bitnet", "command-r": "cohere", "cohere2": "cohere2", "gemma": "gemma"},
    **{"gemma2": "gemma2", "gemma3": "gemma3_text", "phi2": "phi", "phi3": "phi3"},
    **{"gpt2": "gpt2", "starcoder": "gpt_bigcode", "starcoder2": "starcoder2"},
    **{"stablelm": "stablelm", "nemotron": "nemotron", "falcon": "falcon"},
    **{"gptneox": "gpt_neox", "deepseek2": "deepseek_v3", "glm4moe": "glm4_moe"},
    **{"gpt-oss": "gpt_oss", "bloom": "bloom", "dots1": "dots1", "minimax-m2": "minimax_m2"},
}
ATTRIBUTES = {
    Keys.LLM.CONTEXT_LENGTH: ("max_position_embeddings", "n_positions"),
    Keys.LLM.EMBEDDING_LENGTH: ("hidden_size", "n_embd"),
    Keys.LLM.BLOCK_COUNT: ("num_hidden_layers", "n_layer"),
    Keys.LLM.FEED_FORWARD_LENGTH: ("intermediate_size", "n_inner", "ffn_hidden_size"),
    Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: ("moe_intermediate_size",),
    Keys.LLM.EXPERT_SHARED_FEED_FORWARD_LENGTH: ("shared_expert_intermediate_size",),
    Keys.LLM.EXPERT_COUNT: ("num_experts", "num_local_experts", "n_routed_experts"),
    Keys.LLM.EXPERT_USED_COUNT: ("num_experts_per_tok",),
    Keys.LLM.EXPERT_SHARED_COUNT: ("n_shared_experts",),
    Keys.LLM.LEADING_DENSE_BLOCK_COUNT: ("first_k_dense_replace",),
    Keys.LLM.EXPERT_GROUP_COUNT: ("n_group",),
    Keys.LLM.EXPERT_GROUP_USED_COUNT: ("topk_group",),
    Keys.LLM.EXPERT_WEIGHTS_SCALE: ("routed_scaling_factor",),
    Keys.LLM.EXPERT_WEIGHTS_NORM: ("norm_topk_prob",),
    Keys.LLM.LOGIT_SCALE: ("logit_scale", "logits_scaling"),
    Keys.LLM.EMBEDDING_SCALE: ("embedding_multiplier",),
    Keys.LLM.RESIDUAL_SCALE: ("residual_multiplier",),
    Keys.LLM.ATTN_LOGIT_SOFTCAPPING: ("attn_logit_softcapping",),
    Keys.LLM.FINAL_LOGIT_SOFTCAPPING: ("final_logit_softcapping",),
    Keys.LLM.USE_PARALLEL_RESIDUAL: ("use_parallel_residual",),
    Keys.Attention.HEAD_COUNT: ("num_attention_heads", "n_head"),
    Keys.Attention.HEAD_COUNT_KV: ("num_key_value_heads", "num_kv_heads"),
    Keys.Attention.KEY_LENGTH: ("head_dim",),
    Keys.Attention.LAYERNORM_RMS_EPS: ("rms_norm_eps",),
    Keys.Attention.LAYERNORM_EPS: (
        *("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    ),
    Keys.Attention.SCALE: ("attention_multiplier",),
    Keys.Attention.CLAMP_KQV: ("clip_qkv",),
    Keys.Attention.SLIDING_WINDOW: ("sliding_window",),
    Keys.Attention.Q_LORA_RANK: ("q_lora_rank",),
    Keys.Attention.KV_LORA_RANK: ("kv_lora_rank",),
}
PRESENT = {
    "attention_bias": ("blk.0.attn_q.bias", "blk.0.attn_qkv.bias"),
    "attention_out_bias": ("blk.0.attn_output.bias",),
    "use_qkv_bias": ("blk.0.attn_q.bias",),
    "use_bias": ("blk.0.attn_q.bias",),
    "bias": ("blk.0.attn_qkv.bias",),
    "mlp_bias": ("blk.0.ffn_up.bias",),
    "use_qk_norm": ("blk.0.attn_q_norm.weight",),
}
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
PERIODS = {"gemma2": 2, "gemma3": 6, "cohere2": 4, "olmo2": 4, "exaone4": 4, "gpt-oss": 2}


def second_config(architecture: str, page: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
    """The configuration; plain angles, which `set_angles` replaces.

    page, names     metadata of the file, and its tensors by name

    Raises:
        ConfigError: an architecture that this reader does not know.
    """
    import transformers

    if architecture not in MODELS:
        raise ConfigError(f"verify cannot read a GGUF file of architecture {architecture} again")
    kind = _kind(architecture, page)
    usual = transformers.AutoConfig.for_model(kind)
    found: dict[str, Any] = {}
    for key, attributes in ATTRIBUTES.items():
        value = page.get(key.format(arch=architecture))
        for name in attributes:
            if value is not None and hasattr(usual, name):
                found[name] = value[0] if isinstance(value, list) else value
    for name, tensors in PRESENT.items():
        if hasattr(usual, name):
            found[name] = any(tensor in names for tensor in tensors)
    found["vocab_size"] = int(names["token_embd.weight"].shape[-1])
    found["tie_word_embeddings"] = "output.weight" not in names
    found |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    found |= _particular(architecture, page, names, found)
    if isinstance(getattr(type(usual), "head_dim", None), property):
        found.pop("head_dim", None)
    return transformers.AutoConfig.for_model(kind, **found)


def _kind(architecture: str, page: Mapping[str, Any]) -> str:
    if architecture == "llama" and page.get("llama.expert_count"):
        return "mixtral"
    if architecture == "olmo2" and page.get("olmo2.attention.sliding_window"):
        return "olmo3"
    if architecture == "deepseek2" and page.get("deepseek2.expert_gating_func", 1) == 1:
        return "deepseek_v2"
    return MODELS[architecture]


def _particular(
    architecture: str, page: Mapping[str, Any], names: Collection[str], found: dict[str, Any]
) -> dict[str, Any]:
    """What no attribute is named after."""

    def own(name: str, default: Any = None) -> Any:
        return page.get(f"{architecture}.{name}", default)

    heads, width = own("attention.head_count"), own("embedding_length")
    layers = own("block_count") - own("nextn_predict_layers", 0)
    size = own("attention.key_length", width // heads)
    more: dict[str, Any] = {
        "num_hidden_layers": layers,
        "rope_parameters": {
            **PLAIN,
            "partial_rotary_factor": own("rope.dimension_count", size) / size,
        },
        "sliding_window": own("attention.sliding_window") or None,
    }
    if architecture not in ("deepseek2", "gpt2", "starcoder", "falcon", "bloom"):
        more["num_key_value_heads"] = own("attention.head_count_kv", heads)
        more["head_dim"] = size
    if (period := PERIODS.get(architecture)) and more["sliding_window"]:
        pattern = own("attention.sliding_window_pattern")
        if not isinstance(pattern, list):
            pattern = [i % period != period - 1 for i in range(layers)]
        more["layer_types"] = [("full_attention", "sliding_attention")[bool(p)] for p in pattern]
    elif architecture == "exaone4":
        more["layer_types"] = ["full_attention"] * layers
    more |= _constants(architecture, own, names, heads)
    if architecture in ("gemma2", "gemma3"):
        largest = {"gemma2": 46, "gemma3": 62}[architecture]
        more["query_pre_attn_scalar"] = width // heads if layers == largest else size
    if architecture == "granite":
        more["attention_multiplier"] = own("attention.scale", size**-0.5)
    if architecture in ("gemma3", "olmo2") and "layer_types" in more:
        plain = dict(more["rope_parameters"])
        more["rope_parameters"] = {"full_attention": plain, "sliding_attention": dict(plain)}
    return more


def _constants(architecture: str, own: Any, names: Collection[str], heads: int) -> dict[str, Any]:
    """What an architecture is, beside its sizes."""
    if architecture == "deepseek2":
        return _latent(own, heads)
    if architecture == "falcon":
        kv, two = own("attention.head_count_kv", 1), "blk.0.attn_norm_2.weight" in names
        return {
            "multi_query": kv == 1,
            "num_kv_heads": kv,
            "new_decoder_architecture": two or kv not in (1, heads),
            "num_ln_in_parallel_attn": 2 if two else 1,
        }
    if architecture == "mistral3":
        original = own("rope.scaling.original_context_length", own("context_length"))
        beta = own("attention.temperature_scale", 0.0)
        angles = {"llama_4_scaling_beta": beta, "original_max_position_embeddings": original}
        return {"rope_parameters": {**PLAIN, **angles}}
    first = own("rope.scaling.type") == "linear" and own("rope.scaling.factor") == 1
    table: dict[str, dict[str, Any]] = {
        "starcoder": {"multi_query": own("attention.head_count_kv", 1) == 1},
        "stablelm": {"use_parallel_residual": "blk.0.ffn_norm.weight" not in names},
        "bitnet": {"hidden_act": own("hidden_activation", "silu" if first else "relu2")},
        "qwen2moe": {"norm_topk_prob": False},
        "qwen3moe": {"norm_topk_prob": True},
        "olmoe": {"norm_topk_prob": False},
        "glm4moe": {"n_group": own("expert_group_count", 1), "topk_group": 1},
        "gpt-oss": {"intermediate_size": own("expert_feed_forward_length")},
        "dots1": {"layer_types": ["full_attention"] * own("block_count")},
        "minimax-m2": {"intermediate_size": own("expert_feed_forward_length")},
        "phi3": {"original_max_position_embeddings": own("context_length")},
    }
    return table.get(architecture, {})


def _latent(own: Any, heads: int) -> dict[str, Any]:
    """Heads that a latent vector is unfolded into, and the router beside them."""
    rotated, groups = own("rope.dimension_count"), own("expert_group_count", 1)
    queries = own("attention.key_length_mla", own("attention.key_length"))
    return {
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": queries - rotated,
        "v_head_dim": own("attention.value_length_mla", own("attention.value_length")),
        "num_key_value_heads": heads,
        "head_dim": rotated,
        "q_lora_rank": own("attention.q_lora_rank"),
        "n_group": groups,
        "topk_group": own("expert_group_used_count", 1),
        "norm_topk_prob": own("expert_weights_norm", False),
        "routed_scaling_factor": own("expert_weights_scale", 1.0),
        "topk_method": "greedy" if groups < 2 else "group_limited_greedy",
        "rope_parameters": dict(PLAIN),
    }
