"""Rotary angles of a GGUF file -> `rope_parameters` of transformers.

A file says them in metadata (`rope.scaling.*`) and in small tensors by which each frequency is
divided (`rope_freqs.weight`, or `rope_factors_long.weight` and `rope_factors_short.weight`). Each
of them is used, or the file is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lcc.errors import ModelError
from lcc.sources.from_gguf.file import Fields

Angles = dict[str, Any]
Read = Callable[[str], Sequence[float] | None]
"""Name of a small tensor -> its numbers; None = the file has none of that name."""

PLAIN = {"rope_type": "default"}
BASE = 10_000.0  # where a file does not say it


def rope_parameters(fields: Fields, read: Read, *, window: int) -> Angles:
    """The angles of a file, without the share of a head that is rotated.

    fields  of the file
    read    small tensors of the file
    window  tokens that the model was trained to read

    Raises:
        ModelError: an unknown scaling, or two that exclude one another.
    """
    angles: Angles = {"rope_theta": float(fields.own("rope.freq_base", BASE))}
    kind = fields.own("rope.scaling.type")
    factor = float(fields.own("rope.scaling.factor", 0) or fields.own("rope.scale_linear", 0) or 1)
    original = int(fields.own("rope.scaling.original_context_length", window))
    attention = float(fields.own("rope.scaling.attn_factor", 1.0))
    freqs = read("rope_freqs.weight")
    long, short = read("rope_factors_long.weight"), read("rope_factors_short.weight")
    if long is not None and short is not None:
        _alone(fields, kind in (None, "longrope", "none") and freqs is None, "rope_factors_*")
        return angles | _longrope(short, long, original, window, attention)
    if kind == "longrope" or long is not None or short is not None:
        raise ModelError(
            f"{fields.architecture}: rope.scaling.type longrope wants the tensors "
            "rope_factors_long.weight and rope_factors_short.weight, and the file has not both"
        )
    if kind == "yarn":
        _alone(fields, freqs is None, "rope_freqs.weight")
        return angles | _yarn(fields, factor, original, attention)
    if kind not in (None, "none", "linear"):
        raise ModelError(
            f"{fields.architecture}: rope.scaling.type is {kind!r}, wanted none, linear, yarn or "
            "longrope"
        )
    _alone(fields, attention == 1, "rope.scaling.attn_factor")
    if kind == "none":
        factor = 1.0
    if freqs is not None and any(each != 1 for each in freqs):
        _alone(fields, factor == 1, "rope_freqs.weight")
        return angles | _by_frequency(freqs, angles["rope_theta"], window)
    return angles | (PLAIN if factor == 1 else {"rope_type": "linear", "factor": factor})


def _alone(fields: Fields, alone: bool, what: str) -> None:
    if not alone:
        kind, factor = fields.own("rope.scaling.type"), fields.own("rope.scaling.factor")
        raise ModelError(
            f"{fields.architecture}: {what} beside another rope scaling ({kind}, factor {factor}); "
            "lcc knows no model that has both"
        )


def _longrope(
    short: Sequence[float], long: Sequence[float], original: int, window: int, attention: float
) -> Angles:
    return {
        "rope_type": "longrope",
        "short_factor": list(short),
        "long_factor": list(long),
        "original_max_position_embeddings": original,
        "factor": window / original,
        "attention_factor": attention,
    }


def _yarn(fields: Fields, factor: float, original: int, attention: float) -> Angles:
    """YaRN; cosine and sine are multiplied by 1 + 0.1 ln(factor), or by what the file says."""
    share = fields.own("rope.scaling.yarn_ext_factor", 1.0)
    if share != 1:
        raise ModelError(
            f"{fields.architecture}: rope.scaling.yarn_ext_factor is {share}, wanted 1 or nothing"
        )
    said = fields.own("rope.scaling.yarn_attn_factor")
    angles: Angles = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
        "beta_fast": float(fields.own("rope.scaling.yarn_beta_fast", 32.0)),
        "beta_slow": float(fields.own("rope.scaling.yarn_beta_slow", 1.0)),
    }
    if said is not None or attention != 1:
        usual = 1 + 0.1 * math.log(factor)
        angles["attention_factor"] = attention * float(usual if said is None else said)
    return angles


def _by_frequency(factors: Sequence[float], base: float, window: int) -> Angles:
    """Factors of each frequency: those of Llama 3 where they are, else as they stand."""
    angles = _llama3(factors, base)
    if angles is None:
        return _longrope(factors, factors, window, window, 1.0)
    return angles


def _llama3(factors: Sequence[float], base: float) -> Angles | None:
    """The three numbers that give these factors, found by the frequencies in between.

    Between the long and the short waves, 1/factor goes from 1/most to 1 with original/wave. Two
    such points say the line, one says it where the border is the usual one (1 and 4).
    """
    size, most = len(factors), max(factors)
    waves = [2 * math.pi * base ** (i / size) for i in range(size)]
    if most <= 1:
        return None
    points = [
        (1 / wave, (1 / factor - 1 / most) / (1 - 1 / most))
        for wave, factor in zip(waves, factors, strict=True)
        if 1 < factor < most
    ]
    tries = [(8192.0, 4.0), *((round((3 * s + 1) / x), 4.0) for x, s in points)]
    if len(points) > 1:
        (x0, s0), (x1, s1) = points[0], points[-1]
        slope = (s1 - s0) / (x1 - x0)
        start = s0 - slope * x0  # -low / (high - low), where low is 1
        if start < 0:
            tries.append((round(-slope / start), round(1 - 1 / start, 3)))
    tries += [(2.0**power, 4.0) for power in range(3, 24)]
    for original, high in tries:
        got = [_llama3_factor(wave, most, original, high) for wave in waves]
        if all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(got, factors, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": most,
                "low_freq_factor": 1.0,
                "high_freq_factor": high,
                "original_max_position_embeddings": int(original),
            }
    return None


def _llama3_factor(wave: float, most: float, original: float, high: float) -> float:
    smooth = min(1.0, max(0.0, (original / wave - 1) / (high - 1)))
    return 1 / ((1 - smooth) / most + smooth)


def freeze_equal_factors(module: Any) -> None:
    """Make angles static whose factors are the same for short and long texts.

    transformers chooses between them by the length of the text in every step, which no exporter
    can follow.
    """
    for part in module.modules():
        config = getattr(part, "config", None)
        angles = getattr(config, "rope_parameters", None)
        if getattr(part, "rope_type", None) != "longrope" or not isinstance(angles, dict):
            continue
        if angles.get("short_factor") == angles.get("long_factor"):
            part.rope_type = "default"
