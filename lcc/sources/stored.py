"""Tensors of safetensors files, read when they are wanted: no page of a file stays mapped."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor

# Types of numbers by their names in a file; what is packed is another matter.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def safetensors_of(path: Path) -> dict[str, LazyTensor]:
    """Name -> tensor as the file has it, in its own dtype; the header alone is read.

    Raises:
        ModelError: the file is damaged, or has numbers of a type that lcc does not read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):  # what a header may say is checked there
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged ({error}); download it again") from None
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ModelError(
                f"{path}: {name} is of type {entry['dtype']}, wanted one of {', '.join(DTYPES)}"
            )
        begin = 8 + size + entry["data_offsets"][0]
        found[name] = stored(path, begin, tuple(entry["shape"]), DTYPES[entry["dtype"]])
    return found


def stored(path: Path, begin: int, shape: tuple[int, ...], dtype: torch.dtype) -> LazyTensor:
    """Numbers that lie in a file one after the other, `begin` bytes behind its first."""
    width = math.prod(shape[1:]) * dtype.itemsize

    def read(start: int, stop: int) -> Tensor:
        size = (stop - start) * width
        data = np.fromfile(path, np.uint8, size, offset=begin + start * width)
        if len(data) < size:
            raise ModelError(f"{path}: it ends before its tensors do; download it again")
        numbers = torch.from_numpy(data).view(dtype) if size else torch.empty(0, dtype=dtype)
        return numbers.reshape((stop - start, *shape[1:]) if shape else ())

    return LazyTensor(shape, dtype, read, (str(path), begin))
