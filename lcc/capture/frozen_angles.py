"""What a model changes with the length of the text, frozen where a cache never gets there.

LongRoPE has one set of frequencies for texts up to the length that the model was first trained on,
and one for longer texts; dynamic NTK scaling begins behind the trained length. Queries of Llama 4
and Ministral 3 are scaled by the logarithm of the position, in steps: up to the first step by 1.
Positions follow slots, so in a cache of no more slots the first of each is all that is ever used.
"""

import contextlib
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_SCALE = "get_llama_4_attn_scale"  # of queries, by position: a function of Ministral 3's module
_BEGINS = {  # kind of rotary embedding -> field with the length behind which it changes
    "longrope": "original_max_position_embeddings",
    "dynamic": "max_position_embeddings",
}


@contextlib.contextmanager
def frozen_angles(model: nn.Module) -> Iterator[int | None]:
    """Keep the frequencies of short texts for as long as this is open.

    Yields the number of positions for which they hold; None = the model does not change them.
    """
    changed: list[tuple[Any, dict[str, Any]]] = []
    ends: list[int] = []
    try:
        for module in model.modules():
            if found := _lengths(module):
                ends += found
                changed.append((module, dict(module._buffers)))
                for name in module._buffers:
                    original = _original(module, name)
                    if original is not None:  # a longer text may have been read before
                        module._buffers[name] = original.clone()
                module.forward = types.MethodType(  # type: ignore[method-assign]
                    inspect.unwrap(type(module).forward), module
                )
        with _queries_as_they_are(model) as steps:
            yield min([*ends, *steps], default=None)
    finally:
        for module, buffers in changed:
            del module.__dict__["forward"]
            module._buffers.update(buffers)


@contextlib.contextmanager
def _queries_as_they_are(model: nn.Module) -> Iterator[list[int]]:
    """Scale no queries by their positions; yields for how many of these that is the same."""
    ends: list[int] = []
    switched: list[Any] = []
    replaced: dict[Any, Any] = {}
    each: Any
    for each in model.modules():
        home = sys.modules[type(each).__module__]
        if getattr(each, "attn_temperature_tuning", False) and hasattr(each, "floor_scale"):
            if not getattr(each, "use_rope", False):
                switched.append(each)
                ends.append(int(each.floor_scale) - 1)  # log(1 + floor((position + 1) / scale))
        elif type(each).__name__.endswith("Attention") and hasattr(home, _SCALE):
            replaced.setdefault(home, getattr(home, _SCALE))
            ends.append(int(each.config.rope_parameters["original_max_position_embeddings"]))
    try:
        for module in switched:
            module.attn_temperature_tuning = False
        for home in replaced:
            setattr(home, _SCALE, lambda *_: torch.ones(()))
        yield ends
    finally:
        for module in switched:
            module.attn_temperature_tuning = True
        for home, function in replaced.items():
            setattr(home, _SCALE, function)


def _lengths(module: nn.Module) -> list[int]:
    """Positions for which each kind of angle of a rotary embedding holds, if it is one of these."""
    kinds, config = getattr(module, "rope_type", None), getattr(module, "config", None)
    if kinds is None or config is None:
        return []
    fields = getattr(config, "rope_parameters", None) or {}
    found = []
    for layer, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
        for name, field in _BEGINS.items():
            if name in str(kind):
                own = fields if layer is None else fields.get(layer, {})
                found.append(int(own.get(field) or getattr(config, field)))
    return found


def _original(module: Any, name: str) -> Any:
    """What a buffer of frequencies was when the model was made."""
    if not name.endswith("inv_freq") or name.endswith("original_inv_freq"):
        return None
    return getattr(module, f"{name.removesuffix('inv_freq')}original_inv_freq", None)
