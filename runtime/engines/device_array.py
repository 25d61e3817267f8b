"""Buffers that lie on a device: what of numpy's arrays a cache needs, and no more."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lcc.errors import TargetError


class DeviceArray:
    """A buffer in the memory of a device, for ONNX Runtime's programs to read and write.

    value   the `onnxruntime.OrtValue`, to be bound as input and as output
    """

    def __init__(self, shape: Sequence[int], dtype: str, device: str) -> None:
        """All zeros. `device`: "cuda", or "cpu", where everything works the same but for speed.

        Raises TargetError where ONNX Runtime cannot take memory on it.
        """
        import onnxruntime

        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        try:
            self.value: Any = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                list(shape), self.dtype.type, device, 0
            )
        except Exception as error:  # its own types share no other base
            raise TargetError(
                f"ONNX Runtime cannot take {self.nbytes:,} bytes of memory on {device}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        self.write(np.zeros(self.shape, self.dtype))

    @property
    def nbytes(self) -> int:
        """Bytes taken on the device."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """A copy, in the host's memory."""
        array: np.ndarray = self.value.numpy()
        return array

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a copy, in the host's memory."""
        return self.read()[index]

    def __setitem__(self, index: tuple[slice, ...], part: np.ndarray) -> None:
        """Write a part: all of it goes to the host's memory and back."""
        whole = self.read()
        whole[index] = part
        self.write(whole)

    def write(self, array: np.ndarray) -> None:
        """Copy an array of the same shape and dtype from the host's memory."""
        assert (array.shape, array.dtype) == (self.shape, self.dtype), "another shape or dtype"
        self.value.update_inplace(np.ascontiguousarray(array))


Buffer = np.ndarray | DeviceArray
