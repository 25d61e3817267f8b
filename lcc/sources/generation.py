"""How a model likes to be asked: what lcc has of it, and what it has not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

KEYS = (
    "bos_token_id",
    "do_sample",
    "max_new_tokens",
    "min_p",
    "pad_token_id",
    "repetition_penalty",
    "stop_strings",
    "temperature",
    "top_k",
    "top_p",
)
# Field -> the values, besides none at all, with which it changes nothing.
OTHERS: dict[str, tuple[object, ...]] = {
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "early_stopping": (False,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "length_penalty": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "sequence_bias": (),
    "suppress_tokens": ([],),
    "top_h": (),
    "typical_p": (1,),
    "watermarking_config": (),
}


def unheeded(page: Mapping[str, Any]) -> list[str]:
    """Names of fields that lcc has not and that change which tokens are chosen."""
    return [
        name
        for name, neutral in sorted(OTHERS.items())
        if page.get(name) is not None and page[name] not in neutral
    ]


def generation_page(defaults: Any, config: Any, tokenizer: Any, name: str) -> dict[str, Any]:
    """The defaults of generation; `eos_token_id` lists every token that ends an answer.

    What lcc has not is reported in the log: a model answers without it.
    """
    ends: set[int] = set()
    for owner in (defaults, config.get_text_config(), tokenizer):
        end = getattr(owner, "eos_token_id", None)
        ends.update([end] if isinstance(end, int) else end or [])
    if missing := unheeded({key: getattr(defaults, key, None) for key in OTHERS}):
        log.warning(
            "%s: generation_config.json asks for %s, which lcc has not; it answers without",
            name,
            ", ".join(missing),
        )
    found = {key: getattr(defaults, key, None) for key in KEYS}
    return {
        **{key: value for key, value in found.items() if value is not None},
        "eos_token_id": sorted(ends),
    }
