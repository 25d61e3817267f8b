"""What a table cannot say of mixtures of experts: routers, latent attention, layers left out."""

from __future__ import annotations

from typing import Any

from lcc.errors import ModelError
from lcc.sources.from_gguf.architecture import Source

Config = dict[str, Any]
SOFTMAX, SIGMOID = 1, 2


def _router(source: Source, config: Config) -> int:
    """Groups, scale and norm of a router; returns its kind."""
    own = source.fields.own
    config |= {
        "n_group": own("expert_group_count", 1) or 1,
        "topk_group": own("expert_group_used_count", 1) or 1,
        "routed_scaling_factor": float(own("expert_weights_scale", 1.0)) or 1.0,
        "norm_topk_prob": bool(own("expert_weights_norm", False)),
    }
    kind = own("expert_gating_func", SOFTMAX) or SOFTMAX
    if kind not in (SOFTMAX, SIGMOID):
        raise ModelError(
            f"{source.fields.architecture}: expert_gating_func is {kind}, wanted 1 (softmax) or 2 "
            "(sigmoid)"
        )
    return int(kind)


def latent_heads(source: Source, config: Config) -> None:
    """Sizes of heads that a latent vector is unfolded into; files of two ages say them."""
    own = source.fields.own
    queries, values = own("attention.key_length"), own("attention.value_length")
    queries = own("attention.key_length_mla", queries)
    rotated = source.fields.need("rope.dimension_count")
    config |= {
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": queries - rotated,
        "v_head_dim": own("attention.value_length_mla", values),
        "num_key_value_heads": config["num_attention_heads"],
    }


def deepseek(source: Source, config: Config) -> None:
    """DeepSeek 2 and 3 share a name: the router tells them apart."""
    config.setdefault("q_lora_rank", None)
    if _router(source, config) == SOFTMAX:
        grouped = config["n_group"] > 1
        config["model_type"] = "deepseek_v2"
        config["topk_method"] = "group_limited_greedy" if grouped else "greedy"
    share = source.fields.own("rope.scaling.yarn_log_multiplier")
    if share and source.angles["rope_type"] == "yarn":
        scale = round(share / 0.1, 6)  # the converter writes a tenth of it
        config["rope_parameters"] |= {"mscale": scale, "mscale_all_dim": scale}


def glm4moe(source: Source, config: Config) -> None:
    """GLM 4.5: a sigmoid decides."""
    _wants_sigmoid(source, _router(source, config))


def dots1(source: Source, config: Config) -> None:
    """dots.llm1: a sigmoid decides, all layers are full."""
    _wants_sigmoid(source, _router(source, config))
    kinds = ["full_attention"] * config["num_hidden_layers"]
    config |= {"sliding_window": None, "layer_types": kinds}


def minimax(source: Source, config: Config) -> None:
    """MiniMax M2: a sigmoid decides; the size of experts is said twice."""
    _wants_sigmoid(source, int(source.fields.own("expert_gating_func", SIGMOID)))
    inner = source.fields.own("expert_feed_forward_length")
    config["intermediate_size"] = inner or config["intermediate_size"]


def _wants_sigmoid(source: Source, kind: int) -> None:
    if kind != SIGMOID:
        raise ModelError(
            f"{source.fields.architecture}: expert_gating_func is {kind}, wanted 2 (sigmoid)"
        )


def gpt_oss(source: Source, config: Config) -> None:
    """Experts say their size twice; the ramp of YaRN is not rounded."""
    inner = source.fields.own("expert_feed_forward_length")
    config["intermediate_size"] = inner or config["intermediate_size"]
    if source.angles["rope_type"] == "yarn":
        config["rope_parameters"]["truncate"] = False
