"""Fields of config.json that change a model's numbers, and that its class does not have.

transformers keeps a field that a class does not know as an attribute that nobody reads. Most such
fields mean nothing (versions, switches of training); those below belong to other architectures, and
a model that has one of them is not what its class computes.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from lcc.errors import ModelError

# Field -> the values, besides none at all, with which it changes nothing.
MEANINGFUL: dict[str, tuple[object, ...]] = {
    "alibi": (False,),
    "attention_bias": (False,),
    "attention_multiplier": (),
    "attn_logit_softcapping": (0,),
    "clip_qkv": (),
    "dual_chunk_attention_config": (),
    "embedding_multiplier": (1,),
    "final_logit_softcapping": (0,),
    "kv_lora_rank": (0,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "mlp_bias": (False,),
    "n_routed_experts": (0, 1),
    "no_rope_layers": ([],),
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
    "qk_layernorm": (False,),
    "qkv_bias": (False,),
    "query_pre_attn_scalar": (),
    "residual_multiplier": (1,),
    "sliding_window": (0,),
    "use_alibi": (False,),
    "use_qk_norm": (False,),
    "use_qkv_bias": (False,),
}


def check_fields(page: Mapping[str, Any], config: Any, name: str) -> None:
    """Refuse a configuration of which a part would be dropped.

    Args:
        page: config.json.
        config: what transformers made of it.
        name: of the model, for messages.

    Raises:
        ModelError: names the first such field.
    """
    parts = [(page, config)]
    text, inner = config.get_text_config(), page.get("text_config")
    if text is not config and isinstance(inner, dict):
        parts.append((inner, text))
    for fields, owner in parts:
        kind = type(owner)
        other_names = getattr(kind, "attribute_map", {})
        known = _names(kind) | set(other_names) | set(other_names.values())
        for key in sorted(MEANINGFUL.keys() & fields.keys() - known):
            value = fields[key]
            if hasattr(kind, key) or value is None or value in MEANINGFUL[key]:
                continue
            if key == "sliding_window" and fields.get("use_sliding_window") is False:
                continue
            raise ModelError(
                f"{name}: config.json says {key} = {value}, which {kind.__name__} of transformers "
                "does not have, so that the model would be another one; correct model_type, or "
                "remove the field if the model was trained without it"
            )


def _names(kind: Any) -> set[str]:
    """Fields of a class of configurations, and what it makes of them."""
    if dataclasses.is_dataclass(kind):
        names = {field.name for field in dataclasses.fields(kind)}
    else:  # older versions of transformers
        names = set(inspect.signature(kind.__init__).parameters)
    try:
        return names | vars(kind()).keys()
    except (TypeError, ValueError):  # one that has no defaults
        return names
