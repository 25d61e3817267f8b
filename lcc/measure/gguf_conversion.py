"""A module of transformers -> the tensors of a GGUF file, as llama.cpp's converter makes them.

The second reader of `lcc verify` runs it backwards, and tests write files by it. It shares nothing
with what `lcc compile` reads a file by: names are those of the gguf package's own maps, and numbers
are arranged by index.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np
from gguf.constants import MODEL_ARCH_NAMES

Part = tuple[str, np.ndarray]  # name in the file or in the module, numbers

PERMUTED = {"llama", "granite", "granitemoe", "smollm3", "mistral3", "arcee", "olmo"}
NORMS_OF_ONE = {"gemma", "gemma2", "gemma3", "nemotron"}
# Names inside a layer that the package's maps lack.
EXTRA = {
    "mlp.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "self_attn.sinks": "attn_sinks.weight",
    "block_sparse_moe.router.weight": "ffn_gate_inp.weight",
    "block_sparse_moe.experts.down_proj": "ffn_down_exps.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
    "self_attn.attn_sub_norm.weight": "attn_sub_norm.weight",
    "mlp.ffn_sub_norm.weight": "ffn_sub_norm.weight",
}


def converted(
    key: str, array: np.ndarray, architecture: str, config: Any, *, latent_apart: bool = False
) -> Iterator[Part]:
    """One tensor of the module as those of the file, by their names there.

    key             name in the module
    latent_apart    keys and values are unfolded from a latent vector by tensors of their own
    """
    names = _names(architecture, config.get_text_config().num_hidden_layers)
    for name, value in _parts(key, array, architecture, config, latent_apart):
        layer, _, rest = name.removeprefix("model.layers.").partition(".")
        known = name.removeprefix("transformer.") if architecture == "bloom" else name
        short = names.get_name(known, try_suffixes=(".weight", ".bias"))
        if rest in EXTRA:
            short = f"blk.{layer}.{EXTRA[rest]}"
        if short is None and name.startswith("blk."):
            short = name
        if short is None:
            short = {"lm_head.weight": "output.weight"}.get(name)
        assert short is not None, f"{architecture}: {name} has no name in a file"
        yield short, value


@functools.cache
def _names(architecture: str, layers: int) -> gguf.TensorNameMap:
    arch = next(number for number, name in MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(arch, layers)


def _parts(
    key: str, array: np.ndarray, architecture: str, config: Any, latent_apart: bool
) -> list[Part]:
    layer = key.split(".")[2] if key.startswith("model.layers.") else ""
    if "experts.gate_up_proj" in key:
        kind = "bias" if key.endswith("bias") else "weight"
        gate, up = _gate_and_up(array, architecture)
        return [
            (f"blk.{layer}.ffn_gate_exps.{kind}", gate),
            (f"blk.{layer}.ffn_up_exps.{kind}", up),
        ]
    if key.endswith("experts.down_proj") and architecture == "gpt-oss":
        return [(key, array.transpose(0, 2, 1))]
    if key.endswith("kv_b_proj.weight") and latent_apart:
        rows = array.reshape(config.num_attention_heads, -1, config.kv_lora_rank)
        keys, values = np.split(rows, [config.qk_nope_head_dim], axis=1)
        names = [f"blk.{layer}.attn_{each}_b.weight" for each in ("k", "v")]
        return [(names[0], keys.transpose(0, 2, 1)), (names[1], values)]
    return [(key, _arranged(key, array, architecture, config))]


def _arranged(key: str, array: np.ndarray, architecture: str, config: Any) -> np.ndarray:
    if architecture in PERMUTED and (".q_proj." in key or ".k_proj." in key):
        kv = config.num_key_value_heads
        return _interleaved(array, config.num_attention_heads if ".q_proj." in key else kv)
    if architecture in NORMS_OF_ONE and key.endswith("norm.weight"):
        return array + 1
    if architecture == "gpt2" and array.ndim == 2 and "c_" in key:
        return array.T
    if "query_key_value" in key:
        heads = config.num_attention_heads
        falcon = architecture == "falcon"
        groups = heads
        if falcon:
            groups = config.num_kv_heads if config.new_decoder_architecture else 1
        return _ungrouped(array, heads, groups)
    return array[0] if architecture == "qwen2moe" and "shared_expert_gate" in key else array


def _gate_and_up(array: np.ndarray, architecture: str) -> tuple[np.ndarray, np.ndarray]:
    if architecture != "gpt-oss":
        gate, up = np.split(array, 2, axis=1)
        return gate, up
    rows = array.transpose(0, 2, 1) if array.ndim == 3 else array
    return rows[:, ::2], rows[:, 1::2]


def _interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Row i of the first half of a head beside row i of the second."""
    size = array.shape[0] // heads
    order = [
        head * size + half * (size // 2) + i
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    return array[order]


def _ungrouped(array: np.ndarray, heads: int, groups: int) -> np.ndarray:
    """Queries of all groups, then all keys, then all values."""
    each = heads // groups
    size = array.shape[0] // (groups * (each + 2))
    block = [np.arange(size) + size * i for i in range(groups * (each + 2))]
    queries = [block[g * (each + 2) + i] for g in range(groups) for i in range(each)]
    keys = [block[g * (each + 2) + each] for g in range(groups)]
    values = [block[g * (each + 2) + each + 1] for g in range(groups)]
    return array[np.concatenate([*queries, *keys, *values])]
