"""Weights in few bits as published checkpoints have them, packed number by number, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GROUP = 32
Packed = tuple[dict[str, Tensor], np.ndarray]
"""Suffix of a name -> tensor, and the weight [N, K] that they stand for."""


def _ints(rows: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers [.., n] -> int32 [.., n * bits / 32], the first in the lowest bits."""
    count = 32 // bits
    packed = np.zeros((*rows.shape[:-1], rows.shape[-1] // count), np.uint32)
    for place in range(packed.shape[-1]):
        for number in range(count):
            value = rows[..., place * count + number].astype(np.uint32)
            packed[..., place] |= value << np.uint32(number * bits)
    return packed.view(np.int32)


def _tensors(**arrays: np.ndarray) -> dict[str, Tensor]:
    return {f".{name}": torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


def _scales(draw: np.random.Generator, *shape: int) -> np.ndarray:
    return draw.uniform(0.002, 0.02, shape).astype(np.float16)


def gptq(
    draw: np.random.Generator,
    shape: tuple[int, int],
    *,
    bits: int = 4,
    order: bool = False,
    version: int = 1,
) -> Packed:
    """`order`: after act-order, inputs in any groups."""
    outputs, inputs = shape
    level = draw.integers(0, 1 << bits, (inputs, outputs))
    zero = draw.integers(1, 1 << bits, (inputs // GROUP, outputs))
    scale, group = _scales(draw, *zero.shape), np.arange(inputs, dtype=np.int32) // GROUP
    if order:
        group = draw.permutation(group)
    weight = (level - zero[group]) * scale[group].astype(np.float32)
    packed = _tensors(
        qweight=_ints(level.T, bits).T,
        qzeros=_ints(zero - (version == 1), bits),
        scales=scale,
        g_idx=group,
    )
    return packed, weight.T


def awq(draw: np.random.Generator, shape: tuple[int, int]) -> Packed:
    """Of version gemm."""
    outputs, inputs = shape
    level = draw.integers(0, 16, (inputs, outputs))
    zero = draw.integers(0, 16, (inputs // GROUP, outputs))
    scale, group = _scales(draw, *zero.shape), np.arange(inputs) // GROUP

    def mixed(rows: np.ndarray) -> np.ndarray:
        eights = rows.reshape(len(rows), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return _ints(eights.reshape(rows.shape), 4)

    packed = _tensors(qweight=mixed(level), qzeros=mixed(zero), scales=scale)
    return packed, ((level - zero[group]) * scale[group].astype(np.float32)).T


def compressed(
    draw: np.random.Generator,
    shape: tuple[int, int],
    *,
    bits: int = 4,
    groups: bool = True,
    zeros: bool = False,
    order: bool = False,
) -> Packed:
    """Of format pack-quantized."""
    outputs, inputs = shape
    middle, count = 1 << (bits - 1), inputs // GROUP if groups else 1
    level = draw.integers(-middle, middle, shape)
    scale = _scales(draw, outputs, count)
    group = np.arange(inputs, dtype=np.int32) * count // inputs
    more = {}
    if order:
        more["weight_g_idx"] = group = draw.permutation(group)
    zero = draw.integers(-middle, middle, (outputs, count)) if zeros else np.zeros((outputs, count))
    if zeros:
        more["weight_zero_point"] = _ints((zero + middle).T, bits).T
    packed = _tensors(
        weight_packed=_ints(level + middle, bits),
        weight_scale=scale,
        weight_shape=np.array(shape),
        **more,
    )
    return packed, (level - zero[:, group]) * scale[:, group].astype(np.float32)


def compressed_int8(draw: np.random.Generator, shape: tuple[int, int]) -> Packed:
    """Of format int-quantized, a scale a row."""
    level = draw.integers(-127, 128, shape).astype(np.int8)
    scale = _scales(draw, shape[0], 1)
    return _tensors(weight=level, weight_scale=scale), level * scale.astype(np.float32)


def _eighths(draw: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(draw.normal(0, 60, shape)).to(torch.float8_e4m3fn)


def compressed_fp8(draw: np.random.Generator, shape: tuple[int, int], *, rows: bool) -> Packed:
    """Of format float-quantized: a scale a row, or one, and one of inputs, which is not used."""
    number = _eighths(draw, shape)
    scale = draw.uniform(1e-4, 3e-4, (shape[0], 1) if rows else (1,)).astype(np.float32)
    packed = _tensors(weight_scale=scale, input_scale=np.ones(1, np.float32))
    return packed | {".weight": number}, number.float().numpy() * scale


def fp8(draw: np.random.Generator, shape: tuple[int, int], *, size: int = 48) -> Packed:
    """In blocks, of which the last ones are smaller."""
    number = _eighths(draw, shape)
    count = [-(-each // size) for each in shape]
    scale = draw.uniform(1e-4, 3e-4, count).astype(np.float32)
    weight = number.float().numpy().copy()
    for row in range(shape[0]):
        for column in range(shape[1]):
            weight[row, column] *= scale[row // size, column // size]
    return {".weight": number} | _tensors(weight_scale_inv=scale), weight


def nf4(draw: np.random.Generator, shape: tuple[int, int], *, nested: bool = True) -> Packed:
    """Bitsandbytes of 4 bits; `nested`: scales in 8 bits, in blocks of 8."""
    code = draw.integers(0, 16, shape)
    table = np.sort(draw.uniform(-1, 1, 16)).astype(np.float32)
    flat, blocks = code.ravel(), code.size // GROUP
    more: dict[str, np.ndarray]
    state: dict[str, Any] = {"shape": list(shape), "blocksize": GROUP, "dtype": "bfloat16"}
    if nested:
        level = draw.integers(0, 256, blocks).astype(np.uint8)
        outer = draw.uniform(0.01, 0.05, -(-blocks // 8)).astype(np.float32)
        inner = np.linspace(-1, 1, 256, dtype=np.float32)
        scale = inner[level] * outer[np.arange(blocks) // 8] + np.float32(0.125)
        more = {"absmax": level, "nested_absmax": outer, "nested_quant_map": inner}
        state |= {"nested_blocksize": 8, "nested_offset": 0.125, "nested_dtype": "float32"}
    else:
        scale = draw.uniform(0.02, 0.05, blocks).astype(np.float32)
        more = {"absmax": scale}
    weight = (table[flat] * np.repeat(scale, GROUP)).reshape(shape)
    tensors = {
        f".weight{suffix}": tensor for suffix, tensor in _tensors(quant_map=table, **more).items()
    }
    page = np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
    tensors[".weight.quant_state.bitsandbytes__nf4"] = torch.from_numpy(page)
    halves = (flat[0::2] << 4 | flat[1::2]).astype(np.uint8)[:, None]
    return tensors | {".weight": torch.from_numpy(halves)}, weight


def rows_of_8(draw: np.random.Generator, shape: tuple[int, int]) -> Packed:
    """Bitsandbytes of 8 bits."""
    level = draw.integers(-127, 128, shape).astype(np.int8)
    scale = draw.uniform(0.5, 2, shape[0]).astype(np.float32)
    packed = _tensors(weight=level, SCB=scale, weight_format=np.zeros((), np.uint8))
    return packed, level * (scale[:, None] / np.float32(127))


def mxfp4(draw: np.random.Generator, shape: tuple[int, int, int]) -> Packed:
    """Experts [E, K, N] of gpt-oss."""
    experts, inputs, outputs = shape
    code = draw.integers(0, 16, (experts, outputs, inputs // 32, 32))
    exponent = draw.integers(118, 124, (experts, outputs, inputs // 32)).astype(np.uint8)
    positive = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    table = np.array([*positive, *(-each for each in positive)], np.float32)
    value = table[code] * np.float32(2) ** (exponent.astype(np.float32) - 127)[..., None]
    packed = {
        "_blocks": torch.from_numpy((code[..., 0::2] | code[..., 1::2] << 4).astype(np.uint8)),
        "_scales": torch.from_numpy(exponent),
    }
    return packed, value.reshape(experts, outputs, inputs).transpose(0, 2, 1)


PAGES: Mapping[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}},
    },
    "fp8": {"quant_method": "fp8", "weight_block_size": [48, 48]},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "mxfp4": {"quant_method": "mxfp4"},
}
WRITERS: Mapping[str, Callable[..., Packed]] = {
    "gptq": gptq,
    "awq": awq,
    "compressed-tensors": compressed,
    "fp8": fp8,
    "bitsandbytes": nf4,
    "mxfp4": mxfp4,
}


def quantize_folder(folder: Path, method: str, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Give the linear layers of a checkpoint other weights, packed; name -> what they stand for.

    mxfp4: its experts, which are three-dimensional.
    """
    from safetensors.torch import load_file, save_file

    draw, path = np.random.default_rng(seed), folder / "model.safetensors"
    tensors, meant = load_file(path), {}
    end = "_proj" if method == "mxfp4" else "_proj.weight"
    for name in [each for each in tensors if each.endswith(end)]:
        packed, meant[name] = WRITERS[method](draw, tuple(tensors.pop(name).shape))
        stem = name.removesuffix(".weight")
        tensors |= {stem + suffix: tensor for suffix, tensor in packed.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    page = json.loads((folder / "config.json").read_text())
    page["quantization_config"] = PAGES[method]
    (folder / "config.json").write_text(json.dumps(page))
    return meant
