"""Rotary angles that a GGUF file asks for, a frequency at a time, as llama.cpp computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gguf
import numpy as np
import torch
from torch import nn


def set_angles(
    module: nn.Module,
    architecture: str,
    page: Mapping[str, Any],
    tensors: Mapping[str, Any],
    *,
    length: int,
) -> None:
    """Give every rotation of the module the file's angles.

    page, tensors   metadata and tensors of the file
    length          tokens of the longest text
    """

    def own(name: str, default: Any = None) -> Any:
        return page.get(f"{architecture}.rope.{name}", default)

    base, local = own("freq_base", 10_000.0), own("freq_base_swa", 10_000.0)
    scaling = _scaling(own, page[f"{architecture}.context_length"], length, tensors)
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if not name.endswith("inv_freq"):
                continue
            size, plain = 2 * buffer.numel(), _is_local(architecture, part, name, page)
            theta = local if plain and architecture == "gemma3" else base
            angles, factor = _angles(size, theta, {} if plain else scaling, architecture)
            part.register_buffer(name, torch.tensor(angles, dtype=torch.float32), persistent=False)
            _set_factor(part, name, factor)
    log = own("scaling.yarn_log_multiplier", 0.0)
    if log and architecture == "deepseek2" and scaling.get("type") == "yarn":
        grown = 1 + log * math.log(scaling["factor"])
        parts: Any = module.modules()
        for attention in parts:
            if hasattr(attention, "kv_b_proj"):
                attention.scaling = attention.qk_head_dim**-0.5 * grown * grown


def _scaling(own: Any, window: int, length: int, tensors: Mapping[str, Any]) -> dict[str, Any]:
    kind = own("scaling.type", "linear")
    factor = own("scaling.factor", 0) or own("scale_linear", 0) or 1.0
    original = own("scaling.original_context_length", window)
    attention = own("scaling.attn_factor", 1.0)
    names = ("rope_factors_long.weight", "rope_factors_short.weight")
    divide = None
    if names[0] in tensors:
        divide, kind = tensors[names[0] if length > original else names[1]], "none"
    elif "rope_freqs.weight" in tensors:
        divide = tensors["rope_freqs.weight"]
    return {
        "type": kind,
        "factor": 1.0 if kind == "none" else factor,
        "original": original,
        "attention": attention,
        "grown": own("scaling.yarn_attn_factor"),
        "divide": None if divide is None else _numbers(divide),
        "fast": own("scaling.yarn_beta_fast", 32.0),
        "slow": own("scaling.yarn_beta_slow", 1.0),
        "log": own("scaling.yarn_log_multiplier", 0.0),
    }


def _numbers(tensor: Any) -> Sequence[float]:
    found: Sequence[float] = (
        gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type).ravel().tolist()
    )
    return found


def _is_local(architecture: str, part: Any, name: str, page: Mapping[str, Any]) -> bool:
    """Whether these are the angles of windows, which are never scaled."""
    windows = page.get(f"{architecture}.attention.sliding_window")
    return (architecture == "gemma3" and name.startswith("sliding")) or (
        architecture == "olmo2" and bool(windows) and name.startswith("sliding")
    )


def _angles(
    size: int, base: float, scaling: Mapping[str, Any], architecture: str
) -> tuple[list[float], float]:
    """The frequencies, and what cosine and sine are multiplied by."""
    divide = scaling.get("divide") or [1.0] * (size // 2)
    factor, angles = scaling.get("factor", 1.0), []
    yarn = scaling.get("type") == "yarn"
    for i in range(size // 2):
        theta = base ** (-2 * i / size) / divide[i]
        share = _kept(i, size, base, scaling, architecture) if yarn else 0.0
        angles.append(theta / factor * (1 - share) + theta * share)
    if not yarn:
        return angles, scaling.get("attention", 1.0)
    if scaling["grown"] is not None:
        return angles, scaling["grown"] * scaling["attention"]
    grown = 1 + 0.1 * math.log(factor)
    if scaling["log"]:  # the quotient of two growths: of one where they are the same
        log = scaling["log"] if architecture != "deepseek2" else None
        grown = 1.0 if log is None else grown / (1 + 0.1 * log * math.log(factor))
    return angles, grown * scaling["attention"]


def _kept(i: int, size: int, base: float, scaling: Mapping[str, Any], architecture: str) -> float:
    """Share of a frequency that YaRN leaves as it is."""

    def border(turns: float) -> float:
        return size * math.log(scaling["original"] / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = border(scaling["fast"]), border(scaling["slow"])
    if architecture != "gpt-oss":
        low, high = math.floor(low), math.ceil(high)
    low, high = max(0.0, low), min(size - 1.0, high)
    return 1 - min(1.0, max(0.0, (i - low) / max(0.001, high - low)))


def _set_factor(part: Any, name: str, factor: float) -> None:
    prefix = name.removesuffix("original_inv_freq").removesuffix("inv_freq")
    held = f"{prefix}attention_scaling"
    if hasattr(part, held):
        setattr(part, held, factor)
    if isinstance(getattr(part, "rope_type", None), str):
        part.rope_type = "default"  # static from here on
