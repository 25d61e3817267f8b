"""Rotary angles of GGUF files: every form that is written is the form that is computed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcc.errors import ModelError
from lcc.measure.second_reader import read_again
from lcc.sources.models import load_model
from lcc.testing.gguf_writing import built, logits, write

BASE = 10_000.0
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": BASE,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": BASE,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_FIELDS = {
    ".rope.scaling.type": "yarn",
    ".rope.scaling.factor": 4.0,
    ".rope.scaling.original_context_length": 64,
    ".rope.scaling.finetuned": True,
}


def llama3_factors(angles: dict[str, Any], size: int) -> np.ndarray:
    """As the converter computes them, a frequency at a time."""
    low = angles["original_max_position_embeddings"] / angles["low_freq_factor"]
    high = angles["original_max_position_embeddings"] / angles["high_freq_factor"]
    found = []
    for i in range(0, size, 2):
        wave = 2 * math.pi * BASE ** (i / size)
        if wave < high:
            found.append(1.0)
        elif wave > low:
            found.append(angles["factor"])
        else:
            share = angles["original_max_position_embeddings"] / wave - angles["low_freq_factor"]
            smooth = share / (angles["high_freq_factor"] - angles["low_freq_factor"])
            found.append(1 / ((1 - smooth) / angles["factor"] + smooth))
    return np.array(found, np.float32)


def same(path: Path, module: Any, count: int = 200) -> bool:
    """Whether the file gives the module's logits, and plain angles would not."""
    expected = logits(module, count)
    plain = built("llama", head_dim=getattr(module.config, "head_dim", 16))
    if module.config.model_type == "llama":
        assert (logits(plain, count) - expected).abs().max() > 1e-3, "scaling changes nothing"
    most = 1e-4 * float(expected.abs().max())
    got = logits(load_model(path).module, count)
    again = logits(read_again(path, length=count), count)
    assert torch.allclose(got, again, atol=most), "two readers, two models"
    return torch.allclose(got, expected, atol=most)


@pytest.mark.parametrize("size", [16, 32, 128])
@pytest.mark.parametrize(
    "other",
    [
        {},
        {"factor": 32.0},
        {"low_freq_factor": 2.0, "high_freq_factor": 8.0},
        {"original_max_position_embeddings": 300},
        {"original_max_position_embeddings": 8192},
        {"low_freq_factor": 1.0, "high_freq_factor": 3.0},
    ],
    ids=str,
)
def test_factors_of_llama_3(tmp_path: Path, size: int, other: dict[str, Any]) -> None:
    angles = LLAMA3 | other
    module = built("llama", head_dim=size, rope_parameters=angles)
    factors = {"rope_freqs.weight": llama3_factors(angles, size)}
    path = write(tmp_path / "m.gguf", "llama", module, {}, factors)
    assert same(path, module)


def test_factors_that_no_formula_gives(tmp_path: Path) -> None:
    """They stand as they are, and the exporter meets no choice by length."""
    factors = np.array([1, 3, 1, 2, 7, 1, 5, 2], np.float32)
    module = built("llama")
    path = write(tmp_path / "m.gguf", "llama", module, {}, {"rope_freqs.weight": factors})
    own = module.model.rotary_emb
    own.inv_freq = own.inv_freq / torch.from_numpy(factors)
    loaded = load_model(path).module
    assert torch.allclose(logits(loaded, 200), logits(module, 200), atol=1e-4)
    assert loaded.model.rotary_emb.rope_type == "default"
    loaded.save_pretrained(tmp_path / "folder")
    again = load_model(tmp_path / "folder").module
    assert torch.allclose(logits(again, 200), logits(module, 200), atol=1e-4)


def test_factors_of_one_are_none(tmp_path: Path) -> None:
    module = built("llama")
    ones = {"rope_freqs.weight": np.ones(8, np.float32)}
    path = write(tmp_path / "m.gguf", "llama", module, {}, ones)
    assert torch.equal(logits(load_model(path).module), logits(module))


@pytest.mark.parametrize(
    "fields",
    [
        {".rope.scaling.type": "linear", ".rope.scaling.factor": 4.0},
        {".rope.scaling.factor": 4.0},  # a factor alone is a linear one
        {".rope.scale_linear": 4.0},
    ],
    ids=str,
)
def test_linear(tmp_path: Path, fields: dict[str, Any]) -> None:
    angles = {"rope_type": "linear", "factor": 4.0, "rope_theta": BASE}
    module = built("llama", rope_parameters=angles)
    assert same(write(tmp_path / "m.gguf", "llama", module, fields), module)


def test_none_is_none_whatever_the_factor(tmp_path: Path) -> None:
    module = built("llama")
    fields = {".rope.scaling.type": "none", ".rope.scaling.factor": 4.0}
    path = write(tmp_path / "m.gguf", "llama", module, fields)
    assert torch.equal(logits(load_model(path).module), logits(module))


@pytest.mark.parametrize(
    ("angles", "fields"),
    [
        ({}, {}),
        ({"beta_fast": 16.0, "beta_slow": 2.0}, {".rope.scaling.yarn_beta_fast": 16.0}),
        ({"attention_factor": 0.5 * (1 + 0.1 * math.log(4))}, {".rope.scaling.attn_factor": 0.5}),
        ({"attention_factor": 1.5}, {".rope.scaling.yarn_attn_factor": 1.5}),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_yarn(tmp_path: Path, kind: str, angles: dict[str, Any], fields: dict[str, Any]) -> None:
    if "beta_slow" in angles:
        fields = {**fields, ".rope.scaling.yarn_beta_slow": 2.0}
    module = built(kind, head_dim=16, rope_parameters=YARN | angles)
    assert same(write(tmp_path / "m.gguf", kind, module, YARN_FIELDS | fields), module)


def test_longrope(tmp_path: Path) -> None:
    short, long = [1.0 + 0.1 * i for i in range(8)], [2.0 + i for i in range(8)]
    angles = {
        "rope_type": "longrope",
        "rope_theta": BASE,
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": 64,
        "factor": 8.0,
        "attention_factor": 1.3,
    }
    module = built("phi3", rope_parameters=angles, original_max_position_embeddings=64)
    tensors = {
        "rope_factors_short.weight": np.array(short, np.float32),
        "rope_factors_long.weight": np.array(long, np.float32),
    }
    fields = {".rope.scaling.original_context_length": 64, ".rope.scaling.attn_factor": 1.3}
    for more in ({}, {".rope.scaling.type": "longrope"}):
        path = write(tmp_path / "m.gguf", "phi3", module, fields | more, tensors)
        for count in (40, 200):  # shorter than the original length, and longer
            assert same(path, module, count)


def test_full_layers_of_gemma_3_alone_are_scaled(tmp_path: Path) -> None:
    angles = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
    }
    module = built(
        "gemma3_text",
        head_dim=16,
        num_hidden_layers=6,
        sliding_window=8,
        query_pre_attn_scalar=16,
        tie_word_embeddings=True,
        rope_parameters=angles,
    )
    fields = {
        ".attention.sliding_window": 8,
        ".rope.freq_base_swa": 5_000.0,
        ".rope.scaling.type": "linear",
        ".rope.scaling.factor": 8.0,
    }
    path = write(tmp_path / "m.gguf", "gemma3", module, fields)
    assert same(path, module)
    plain = write(tmp_path / "p.gguf", "gemma3", module, {".attention.sliding_window": 8})
    assert not same(plain, module)


def test_refused_by_name(tmp_path: Path) -> None:
    module, ones = built("llama"), np.ones(8, np.float32)
    freqs = {"rope_freqs.weight": ones * 2}
    cases: list[tuple[dict[str, Any], dict[str, np.ndarray], str]] = [
        ({".rope.scaling.type": "spiral"}, {}, "rope.scaling.type is 'spiral', wanted none, lin"),
        ({".rope.scaling.type": "longrope"}, {}, "longrope wants the tensors rope_factors_long"),
        (YARN_FIELDS, freqs, "rope_freqs.weight beside another rope scaling (yarn"),
        ({".rope.scaling.factor": 4.0}, freqs, "rope_freqs.weight beside another"),
        ({".rope.scaling.attn_factor": 2.0}, {}, "rope.scaling.attn_factor beside another"),
        (YARN_FIELDS | {".rope.scaling.yarn_ext_factor": 0.5}, {}, "yarn_ext_factor is 0.5"),
        ({".rope.scaling.alpha": 2.0}, {}, "llama.rope.scaling.alpha = 2.0"),
        ({".rope.dimension_sections": [4, 4]}, {}, "llama.rope.dimension_sections"),
    ]
    for fields, tensors, words in cases:
        path = write(tmp_path / "m.gguf", "llama", module, fields, tensors)
        with pytest.raises(ModelError) as caught:
            load_model(path)
        assert words in str(caught.value)
