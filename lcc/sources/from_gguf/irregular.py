"""What a table cannot say of an architecture: numbers that follow from others, kinds of layers.

Where a file says nothing, llama.cpp, for which it was written, decides what is meant.
"""

from __future__ import annotations

import math
from typing import Any

from lcc.errors import ModelError
from lcc.sources.from_gguf.architecture import Source

Config = dict[str, Any]


def plain_heads(source: Source, config: Config) -> None:
    """Size of a head: of queries, keys and values alike."""
    width, heads = (
        source.fields.need("embedding_length"),
        source.fields.need("attention.head_count"),
    )
    size = source.fields.own("attention.key_length", width // heads)
    values = source.fields.own("attention.value_length", size)
    if values != size:
        raise ModelError(
            f"{source.fields.architecture}: attention.value_length is {values}, wanted "
            f"attention.key_length, {size}"
        )
    config["head_dim"] = size


def llama(source: Source, config: Config) -> None:
    """Mixtral is a Llama whose file counts experts."""
    experts = source.fields.own("expert_count", 0)
    used = source.fields.own("expert_used_count", 0)
    if experts:
        config |= {
            "model_type": "mixtral",
            "num_local_experts": experts,
            "num_experts_per_tok": used,
        }


def ministral(source: Source, config: Config) -> None:
    """Queries grow with the position; the factor of YaRN is the quotient of two."""
    beta = float(source.fields.own("attention.temperature_scale", 0.0))
    share = source.fields.own("rope.scaling.yarn_log_multiplier")
    angles = config["rope_parameters"]
    angles["llama_4_scaling_beta"] = beta
    angles.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    if share and angles["rope_type"] == "yarn":
        angles |= {"mscale": 1.0, "mscale_all_dim": float(share)}


def granite(source: Source, config: Config) -> None:
    """Scores are multiplied by a number of its own."""
    usual = config["head_dim"] ** -0.5
    config["attention_multiplier"] = float(source.fields.own("attention.scale", usual))


def olmo(source: Source, config: Config) -> None:
    """Norms without weights: their epsilon is no field of the configuration."""
    eps = source.fields.own("attention.layer_norm_epsilon", 1e-5)
    if not math.isclose(eps, 1e-5, rel_tol=1e-5):
        raise ModelError(
            f"{source.fields.architecture}: attention.layer_norm_epsilon is {eps}, wanted 1e-05"
        )


def layer_types(source: Source, count: int, every: int) -> list[str]:
    """Windows and full layers: as the file lists them, else each `every`-th is full."""
    pattern = source.fields.own("attention.sliding_window_pattern", every)
    if isinstance(pattern, int):
        pattern = [(i + 1) % pattern != 0 for i in range(count)]
    if len(pattern) != count:
        raise ModelError(
            f"{source.fields.architecture}: attention.sliding_window_pattern has {len(pattern)} "
            f"entries, wanted one for each of {count} layers"
        )
    return ["sliding_attention" if each else "full_attention" for each in pattern]


def olmo2(source: Source, config: Config) -> None:
    """With windows it is OLMo 3, which scales the angles of full layers only."""
    window = source.fields.own("attention.sliding_window")
    if window:
        config |= {
            "model_type": "olmo3",
            "sliding_window": window,
            "layer_types": layer_types(source, config["num_hidden_layers"], 4),
            "rope_parameters": {
                "full_attention": source.angles,
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": source.angles["rope_theta"],
                },
            },
        }


def exaone4(source: Source, config: Config) -> None:
    """Small ones have no windows, large ones have them in three of four layers."""
    window = source.fields.own("attention.sliding_window")
    count = config["num_hidden_layers"]
    kinds = layer_types(source, count, 4) if window else ["full_attention"] * count
    config |= {"sliding_window": window or None, "layer_types": kinds}


def every_fourth_full(source: Source, config: Config) -> None:
    """Windows in three of four layers."""
    config["layer_types"] = layer_types(source, config["num_hidden_layers"], 4)


def bitnet(source: Source, config: Config) -> None:
    """Two families share the name, and older files do not say the activation.

    Their converter wrote a linear scaling by 1 for the first family, with SiLU; the second one,
    which transformers calls bitnet, has squared ReLU.
    """
    kind = source.fields.own("rope.scaling.type")
    factor = source.fields.own("rope.scaling.factor")
    config["hidden_act"] = "silu" if (kind, factor) == ("linear", 1) else "relu2"


def _query_scalar(config: Config, largest: int) -> int:
    """What Gemma divides scores by the root of: the largest model has a number of its own."""
    if config["num_hidden_layers"] == largest:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


def gemma2(source: Source, config: Config) -> None:
    """Caps of scores and logits, every other layer a window."""
    own = source.fields.own
    config |= {
        "attn_logit_softcapping": float(own("attn_logit_softcapping", 50.0)),
        "final_logit_softcapping": float(own("final_logit_softcapping", 30.0)),
        "query_pre_attn_scalar": _query_scalar(config, 46),
        "layer_types": layer_types(source, config["num_hidden_layers"], 2),
    }
    config.setdefault("sliding_window", 4096)


def gemma3(source: Source, config: Config) -> None:
    """Five of six layers are windows, with angles of their own that are never scaled."""
    cap = source.fields.own("final_logit_softcapping")
    base = float(source.fields.own("rope.freq_base_swa", 10_000.0))
    config |= {
        "final_logit_softcapping": float(cap) if cap else None,
        "query_pre_attn_scalar": _query_scalar(config, 62),
        "layer_types": layer_types(source, config["num_hidden_layers"], 6),
        "rope_parameters": {
            "full_attention": source.angles,
            "sliding_attention": {"rope_type": "default", "rope_theta": base},
        },
    }


def phi3(source: Source, config: Config) -> None:
    """A window of all layers, and the length before it was stretched."""
    config["sliding_window"] = source.fields.own("attention.sliding_window") or None
    original = source.angles.get("original_max_position_embeddings")
    config["original_max_position_embeddings"] = original or config["max_position_embeddings"]


def all_heads(source: Source, config: Config) -> None:
    """As many heads of keys as of queries."""
    kv = source.fields.own("attention.head_count_kv", config["n_head"])
    if kv != config["n_head"]:
        raise ModelError(
            f"{source.fields.architecture}: attention.head_count_kv is {kv}, wanted "
            f"{config['n_head']}"
        )


def bloom(source: Source, config: Config) -> None:
    """The MLP is four times as wide as the model, and biases grow with the distance."""
    all_heads(source, config)
    inner, wanted = source.fields.need("feed_forward_length"), 4 * config["hidden_size"]
    if inner != wanted:
        raise ModelError(f"bloom: feed_forward_length is {inner}, wanted {wanted}")
    steepest = source.fields.own("attention.max_alibi_bias", 8.0)
    if steepest != 8:
        raise ModelError(f"bloom: attention.max_alibi_bias is {steepest}, wanted 8")


def starcoder(source: Source, config: Config) -> None:
    """One head of keys, or as many as of queries."""
    kv = source.fields.own("attention.head_count_kv", 1)
    config["multi_query"] = kv == 1
    if kv not in (1, config["n_head"]):
        raise ModelError(f"starcoder: attention.head_count_kv is {kv}, wanted 1 or all heads")


def stablelm(source: Source, config: Config) -> None:
    """A layer with one norm adds attention and MLP at once."""
    source.fields.own("use_parallel_residual")  # older files say it wrongly
    config["use_parallel_residual"] = "blk.0.ffn_norm.weight" not in source.names


def falcon(source: Source, config: Config) -> None:
    """The first Falcon has one head of keys, the second several and two norms."""
    heads = config["num_attention_heads"]
    kv = source.fields.own("attention.head_count_kv", 1)
    two_norms = "blk.0.attn_norm_2.weight" in source.names
    config |= {
        "multi_query": kv == 1,
        "num_kv_heads": kv,
        "new_decoder_architecture": two_norms or kv not in (1, heads),
        "num_ln_in_parallel_attn": 2 if two_norms else 1,
        "parallel_attn": True,
        "alibi": False,
        "bias": "blk.0.attn_qkv.bias" in source.names,
    }


def gptneox(source: Source, config: Config) -> None:
    """Attention and MLP may be added at once."""
    config["use_parallel_residual"] = bool(source.fields.own("use_parallel_residual", True))
    config["hidden_act"] = "gelu"
