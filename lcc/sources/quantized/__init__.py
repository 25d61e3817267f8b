"""Checkpoints in few bits -> lazy tensors of float32: the numbers that the bits stand for, exactly.

A format is a file: it takes the tensors of a checkpoint by their names, puts one in the place of
each group that belongs together, and leaves all others. What it does not know it refuses by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.sources.quantized import awq, bitsandbytes, compressed_tensors, fp8, gptq, mxfp4

Tensors = dict[str, LazyTensor]
Unpack = Callable[[Tensors, Mapping[str, Any], str], Tensors]

METHODS: Mapping[str, Unpack] = {
    "gptq": gptq.unpack,
    "awq": awq.unpack,
    "compressed-tensors": compressed_tensors.unpack,
    "fp8": fp8.unpack,
    "mxfp4": mxfp4.unpack,
    "bitsandbytes": bitsandbytes.unpack,
}


def method_of(config: Any, name: str) -> str | None:
    """How the weights of a configuration are quantized; None = they are not.

    Raises:
        ModelError: in a way that lcc does not read.
    """
    page = getattr(config, "quantization_config", None)
    if not page:
        return None
    method = as_page(page).get("quant_method") or "an unknown method"
    if method not in METHODS:
        raise ModelError(
            f"{name}: its weights are quantized ({method}), which lcc does not read; give the "
            f"unquantized checkpoint, a GGUF file, or one in {', '.join(METHODS)}"
        )
    return method


def as_page(page: Any) -> dict[str, Any]:
    """The fields of `quantization_config`, which transformers may have made an object of."""
    found = page if isinstance(page, dict) else page.to_dict()
    return {key: getattr(value, "value", value) for key, value in found.items()}


def unpacked(tensors: Tensors, page: Mapping[str, Any], name: str) -> Tensors:
    """The tensors of a checkpoint as its model has them, in float32 where they were packed.

    page    `quantization_config`

    Raises:
        ModelError: something of it is not known, or does not fit together.
    """
    return METHODS[page["quant_method"]](dict(tensors), page, name)
