"""A GGUF model, in one file or split into several: its fields, its tensors, their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcc.errors import ModelError
from lcc.ir.rounded import Levels, Rounded
from lcc.sources.from_gguf.header import Stored, read_header
from lcc.sources.from_gguf.levels import KINDS, levels_of
from lcc.sources.locate import PART

SPLIT = ("split.no", "split.count", "split.tensors.count")
PLAIN = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16, 28: torch.float64}


class GgufFile:
    """What the files of a model hold.

    path        of the first file
    fields      name -> value; a list where the file has an array
    tensors     name -> where it lies
    """

    def __init__(self, path: Path) -> None:
        """Read the headers.

        Raises:
            ModelError: a file is damaged or missing.
        """
        self.path = path
        self.fields, self.tensors = read_header(path)
        count = self.fields.get("split.count", 1)
        if count > 1:
            self._read_parts(count)
        for key in SPLIT:
            self.fields.pop(key, None)

    def _read_parts(self, count: int) -> None:
        part = PART.fullmatch(self.path.name)
        if part is None or int(part["count"]) != count or int(part["number"]) != 1:
            raise ModelError(
                f"{self.path}: the first of {count} files of a model, so its name must end in "
                f"-00001-of-{count:05}.gguf, and the others must lie beside it"
            )
        for number in range(2, count + 1):
            path = self.path.with_name(f"{part['stem']}-{number:05}-of-{count:05}.gguf")
            if not path.is_file():
                raise ModelError(f"{path}: missing, part {number} of {count} of the model")
            fields, tensors = read_header(path)
            if fields.get("split.no") != number - 1 or fields.get("split.count") != count:
                raise ModelError(f"{path}: not part {number} of {count} of the model")
            if twice := sorted(tensors.keys() & self.tensors.keys()):
                raise ModelError(f"{path}: tensor {twice[0]} is in another part, too")
            self.tensors |= tensors
        wanted = self.fields.get("split.tensors.count", len(self.tensors))
        if wanted != len(self.tensors):
            raise ModelError(
                f"{self.path}: its {count} files hold {len(self.tensors)} tensors, wanted {wanted}"
            )

    def value(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """A tensor, or rows of it, in float32, whatever its type in the file."""
        stored = self.tensors[name]
        shape = stored.shape
        if not stored.size:
            return torch.empty(shape)
        if shape and stop is not None:
            shape = (stop - start, *shape[1:])
        data = self._data(stored, start, stop)
        if stored.kind in PLAIN:
            return torch.from_numpy(data).view(PLAIN[stored.kind]).float().reshape(shape)
        return _dequantized(data, stored).reshape(shape)

    def rounded(self, name: str) -> Rounded | None:
        """How a matrix was rounded; None = not by levels in blocks."""
        stored = self.tensors[name]
        if stored.kind not in KINDS or len(stored.shape) != 2:
            return None
        kind = KINDS[stored.kind]

        def rows(start: int, stop: int) -> Levels:
            return levels_of(stored.kind, self._data(stored, start, stop), stored.shape[1])

        return Rounded(rows, kind.bits, kind.block, kind.about_zero)

    def _data(self, stored: Stored, start: int, stop: int | None) -> np.ndarray:
        """The bytes of some rows."""
        begin, size = stored.start, stored.size
        if stored.shape and stop is not None:
            row = size // stored.shape[0]
            begin, size = begin + start * row, (stop - start) * row
        return np.fromfile(stored.path, np.uint8, size, offset=begin)


def _dequantized(data: np.ndarray, stored: Stored) -> torch.Tensor:
    """Numbers of a quantized tensor: by transformers' code, or gguf's where that has none."""
    from transformers.integrations.gguf.dequant import GGML_BLOCK, dequantize

    if stored.kind in GGML_BLOCK:
        return dequantize(torch.from_numpy(data), stored.kind, torch.float32)
    import gguf

    kind = gguf.GGMLQuantizationType(stored.kind)
    try:
        return torch.from_numpy(gguf.quants.dequantize(data, kind).astype(np.float32))
    except NotImplementedError:
        raise ModelError(
            f"{stored.path}: tensor {stored.name} is of type {kind.name}, which lcc cannot read"
        ) from None


class Fields:
    """The metadata of a file, of which each field that is used is noted."""

    def __init__(self, file: GgufFile) -> None:
        self._file, self.taken = file, set[str]()
        self.architecture = self.take("general.architecture")
        if not isinstance(self.architecture, str):
            raise ModelError(f"{file.path}: no field general.architecture")

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a field, which counts as used; the default where it is absent."""
        self.taken.add(key)
        return self._file.fields.get(key, default)

    def own(self, key: str, default: Any = None) -> Any:
        """The same of a field that begins with the architecture's name."""
        return self.take(f"{self.architecture}.{key}", default)

    def need(self, key: str) -> Any:
        """A field of the architecture that must be there."""
        value = self.own(key)
        if value is None:
            raise ModelError(f"{self._file.path}: no field {self.architecture}.{key}")
        return value

    def unused(self) -> list[str]:
        """Names of fields that nobody has used, in order."""
        return sorted(self._file.fields.keys() - self.taken)
