"""The weights of a TVM library: tensors where they lie in their file, which is mapped."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lcc.artifact.weights_index import StoredTensor
from lcc.errors import ArtifactError
from lcc.runtime.engines.host_array import ALIGNMENT


class MappedWeights:
    """The tensors of a file, where they lie in it."""

    def __init__(self, ffi: Any, path: Path) -> None:
        self._ffi, self._path = ffi, path
        # Copy on write, and nothing writes: what is read only numpy does not hand over.
        self._map = np.memmap(path, np.uint8, "c") if path.stat().st_size else np.zeros(0, "u1")
        self._tensors: dict[tuple, Any] = {}

    def tensor(self, stored: StoredTensor) -> Any:
        """One of them, the same object to all that share it."""
        key = (stored.offset, stored.dtype, *stored.shape)
        if key not in self._tensors:
            kind = self._kind(stored)
            count = prod(stored.shape) * kind.itemsize
            if stored.offset < 0 or stored.offset % ALIGNMENT:
                raise ArtifactError(f"{self._path}: a tensor at byte {stored.offset}, not aligned")
            if stored.offset + count > self._map.size:
                raise ArtifactError(
                    f"{self._path}: {self._map.size} bytes, a tensor ends at byte "
                    f"{stored.offset + count}; copy it anew"
                )
            part = self._map[stored.offset : stored.offset + count]
            array = np.asarray(part.view(kind).reshape(stored.shape))
            self._tensors[key] = self._ffi.from_dlpack(array)
        return self._tensors[key]

    def _kind(self, stored: StoredTensor) -> np.dtype:
        """What its numbers are; ArtifactError where they are none, or sizes are negative."""
        try:
            kind = np.dtype(stored.dtype)
        except TypeError:
            kind = np.dtype(object)
        if kind.kind not in "biuf" or any(size < 0 for size in stored.shape):
            raise ArtifactError(f"{self._path}: {stored.dtype} {stored.shape} is no tensor")
        return kind
