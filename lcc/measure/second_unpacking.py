"""Weights in few bits, unpacked a second time: bit by bit, and by other code than they are read by.

What stands for what is in `lcc/sources/quantized/`, a file a format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

Arrays = dict[str, np.ndarray]


def unpack_again(tensors: Mapping[str, torch.Tensor], page: Mapping[str, Any]) -> Arrays:
    """The tensors of a checkpoint as its model has them, in float32 where they were packed.

    page    `quantization_config`
    """
    made = {name: _array(tensor) for name, tensor in tensors.items()}
    found: Arrays = {}
    for name in sorted(made):
        for ending, read in _ENDINGS[page["quant_method"]].items():
            if name.endswith(ending):
                stem = name[: len(name) - len(ending)]
                key, value = read(made, stem, page)
                found[key] = value.astype(np.float32)
    used = {n for n in made for key in found if n.startswith(key.removesuffix(".weight") + ".")}
    used |= {f"{key}{end}" for key in found for end in ("_blocks", "_scales", "_scale_inv")}
    plain = {n: array for n, array in made.items() if n not in used or n.endswith(".bias")}
    return plain | found


def _array(tensor: torch.Tensor) -> np.ndarray:
    kinds = (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)
    return (tensor.float() if tensor.dtype in kinds else tensor).numpy()


def _numbers(packed: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers out of the bits of the last axis, the lowest first."""
    spread = np.unpackbits(np.ascontiguousarray(packed).view(np.uint8), axis=-1, bitorder="little")
    return spread.reshape(*packed.shape[:-1], -1, bits) @ (1 << np.arange(bits))


def _gptq(all_of: Arrays, stem: str, page: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    bits = page["bits"]
    level = _numbers(all_of[f"{stem}.qweight"].T, bits)
    zero = _numbers(all_of[f"{stem}.qzeros"], bits)
    zero += page.get("checkpoint_format", "gptq") == "gptq"
    scale = all_of[f"{stem}.scales"]
    group = all_of.get(f"{stem}.g_idx", np.arange(level.shape[1]) * len(scale) // level.shape[1])
    return f"{stem}.weight", (level - zero[group].T) * scale[group].T


def _awq(all_of: Arrays, stem: str, _: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    mixed = _numbers(all_of[f"{stem}.qweight"], 4), _numbers(all_of[f"{stem}.qzeros"], 4)
    level, zero = (np.empty_like(each) for each in mixed)
    for place, output in enumerate([*range(0, 8, 2), *range(1, 8, 2)]):
        level[:, output::8], zero[:, output::8] = (each[:, place::8] for each in mixed)
    scale = all_of[f"{stem}.scales"]
    group = np.repeat(np.arange(len(scale)), len(level) // len(scale))
    return f"{stem}.weight", ((level - zero[group]) * scale[group]).T


def _compressed(all_of: Arrays, stem: str, page: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    scale = all_of[f"{stem}.weight_scale"]
    zero: Any = all_of.get(f"{stem}.weight_zero_point", 0)
    if (packed := all_of.get(f"{stem}.weight_packed")) is not None:
        rows, columns = all_of[f"{stem}.weight_shape"]
        bits = 32 // (columns // packed.shape[1])
        level = _numbers(packed, bits)[:, :columns] - 2 ** (bits - 1)
        if not isinstance(zero, int):
            zero = _numbers(zero.T, bits).T[:rows] - 2 ** (bits - 1)
    else:
        level = all_of[f"{stem}.weight"]
    rows, columns = level.shape

    def widened(numbers: Any) -> Any:
        if np.ndim(numbers) < 2:
            return numbers
        order = all_of.get(f"{stem}.weight_g_idx")
        tall = np.repeat(numbers, -(-rows // len(numbers)), axis=0)[:rows]
        if order is not None and order.min() >= 0:
            return tall[:, order]
        return np.repeat(tall, -(-columns // numbers.shape[1]), axis=1)[:, :columns]

    return f"{stem}.weight", (level - widened(zero)) * widened(scale)


def _fp8(all_of: Arrays, stem: str, page: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    number, scale = all_of[stem], all_of[f"{stem}_scale_inv"]
    if scale.size > 1:
        ones = np.ones(page.get("weight_block_size") or (128, 128))
        scale = np.kron(scale, ones)[..., : number.shape[-2], : number.shape[-1]]
    return stem, number * scale


def _mxfp4(all_of: Arrays, stem: str, _: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    code = _numbers(all_of[f"{stem}_blocks"], 4)
    sign, exponent, mantissa = 1 - 2 * (code >> 3), code >> 1 & 3, code & 1
    value = np.where(exponent == 0, mantissa / 2, 2.0 ** (exponent - 1) * (1 + mantissa / 2))
    made = sign * value * 2.0 ** (all_of[f"{stem}_scales"][..., None].astype(int) - 127)
    return stem, made.reshape(*made.shape[:2], -1).swapaxes(1, 2)


def _of_a_table(all_of: Arrays, stem: str, _: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    (state,) = (v for k, v in all_of.items() if k.startswith(f"{stem}.quant_state."))
    page = json.loads(state.tobytes())
    code = np.stack(np.divmod(all_of[stem].ravel(), 16), axis=1).ravel()
    scale = all_of[f"{stem}.absmax"]
    if "nested_blocksize" in page:
        outer = all_of[f"{stem}.nested_absmax"][np.arange(len(scale)) // page["nested_blocksize"]]
        scale = all_of[f"{stem}.nested_quant_map"][scale] * outer + page["nested_offset"]
    value = all_of[f"{stem}.quant_map"][code]
    value = value * np.repeat(scale, page["blocksize"])[: len(value)]
    return stem, value[: np.prod(page["shape"])].reshape(page["shape"])


def _of_rows(all_of: Arrays, stem: str, _: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    return f"{stem}.weight", all_of[f"{stem}.weight"] * (all_of[f"{stem}.SCB"][:, None] / 127)


_ENDINGS: dict[str, dict[str, Any]] = {
    "gptq": {".qweight": _gptq},
    "awq": {".qweight": _awq},
    "compressed-tensors": {".weight_scale": _compressed},
    "fp8": {"_scale_inv": _fp8},
    "mxfp4": {"_blocks": _mxfp4},
    "bitsandbytes": {".absmax": _of_a_table, ".SCB": _of_rows},
}
