"""The cache: keys, values and per-entry numbers of all layers, allocated once.

Entries are contiguous in slots 0 .. used-1 and in token order; what lies in the slots after them
means nothing. `used` itself belongs to the executor, so that a step is done when `used` says so.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import DTypeLike

from lcc.artifact.manifest import LayerEntry, Scalar
from lcc.runtime.engines.device_array import Buffer, DeviceArray

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


def zeros(shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """A new array, aligned for vector loads; pages are taken as they are first written."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    array: np.ndarray = raw[start : start + size].view(dtype).reshape(shape)
    return array


class KVCache:
    """Buffers of one session.

    keys[i], values[i]      [1, Hkv_i, S, D_i] of `dtype`
    token_index(i)          [Hkv_i, S] int64, place in the text of the token in each slot
    scalar(name, i)         [Hkv_i, S] float32; those of `manifest.scalars`
    full                    layers that a policy evicts; only they have a token index and scalars
    """

    def __init__(
        self,
        layers: Sequence[LayerEntry],
        capacity: int,
        scalars: Sequence[Scalar],
        dtype: str = "float32",
        allocate: Callable[[Sequence[int], str], Buffer] = zeros,
    ) -> None:
        """Allocate all of it.

        dtype       of keys and values, one of `lcc.artifact.manifest.CACHE_DTYPES`
        allocate    makes a buffer for them, as `Engine.zeros`; the numbers are the host's
        """
        self.layers, self.capacity, self.dtype = layers, capacity, dtype
        self.full = [i for i, layer in enumerate(layers) if layer.slots is None]
        self._row = {layer: row for row, layer in enumerate(self.full)}
        shapes = [(1, e.kv_heads, e.slots or capacity, e.head_size) for e in layers]
        self.keys = [allocate(shape, dtype) for shape in shapes]
        self.values = [allocate(shape, dtype) for shape in shapes]
        # One array for all full layers, so that a step writes its numbers with one assignment.
        most = max((layers[i].kv_heads for i in self.full), default=0)
        self._token_index = zeros((len(self.full), most, capacity), np.int64)
        self._scalars: dict[str, np.ndarray] = {
            name: zeros((len(self.full), most, capacity)) for name in scalars
        }

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        arrays = [*self.keys, *self.values, self._token_index, *self._scalars.values()]
        return sum(array.nbytes for array in arrays)

    def bytes_of(self, used: int) -> int:
        """Bytes that `used` entries of the full layers take, and the others whole."""
        fixed = sum(2 * self.keys[i].nbytes for i, e in enumerate(self.layers) if e.slots)
        return fixed + (self.bytes - fixed) // self.capacity * used

    def token_index(self, layer: int) -> np.ndarray:
        """[Hkv, S] int64, a view."""
        return self._token_index[self._row[layer], : self.layers[layer].kv_heads]

    def scalar(self, name: str, layer: int) -> np.ndarray:
        """[Hkv, S] float32, a view."""
        return self._scalars[name][self._row[layer], : self.layers[layer].kv_heads]

    @property
    def scalar_names(self) -> list[str]:
        """Those that are kept, in the manifest's order."""
        return list(self._scalars)

    def place(self, slot: int, first_token: int, count: int, **scalars: np.ndarray) -> None:
        """Write the numbers of `count` new entries; keys and values are written by the step.

        scalars     name -> what broadcasts to [L, Hkv, count], L full layers; 0 where not given
        """
        where = slice(slot, slot + count)
        self._token_index[:, :, where] = np.arange(first_token, first_token + count)
        for name, array in self._scalars.items():
            array[:, :, where] = scalars.get(name, 0.0)

    def note(self, name: str, slot: int, numbers: np.ndarray) -> None:
        """Write a scalar [n] of the entries from `slot` on, the same for all layers and heads."""
        self._scalars[name][:, :, slot : slot + len(numbers)] = numbers

    def agree(self, name: str, layers: Sequence[int], used: int) -> None:
        """Give every entry the mean of a scalar over all heads of these layers.

        A policy that reads it ranks entries alike in all of them, so that they hold the same tokens
        in the same slots for ever, and the mean is taken slot by slot.
        """
        array = self._scalars[name]
        heads = [self.scalar(name, i)[:, :used] for i in layers]
        array[:, :, :used] = np.concatenate(heads).mean(axis=0, dtype=np.float64)

    def compact(
        self, layer: int, kept: np.ndarray, kept_key: np.ndarray, kept_value: np.ndarray
    ) -> None:
        """Make the `kept` entries of a layer the first ones of every head.

        kept                    [Hkv, n] int64, slots, ascending
        kept_key, kept_value    [1, Hkv, n, D] of `dtype`, already gathered (and rotated)
        """
        count = kept.shape[1]
        self.fill(layer, kept_key[0, :, :count], kept_value[0, :, :count])
        self._compact_numbers(layer, kept)

    def replace(
        self, layer: int, kept: np.ndarray, key: Buffer, value: Buffer
    ) -> tuple[Buffer, Buffer]:
        """The same, where a program has made a whole layer of them; returns the old buffers.

        key, value      [1, Hkv, S, D] of `dtype`; the `kept` entries come first
        """
        old = self.keys[layer], self.values[layer]
        self.keys[layer], self.values[layer] = key, value
        self._compact_numbers(layer, kept)
        return old

    def rows(self, layer: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first keys and values [Hkv, count, D] of a layer: views, or copies from a device."""
        key, value = (
            each.read() if isinstance(each, DeviceArray) else each
            for each in (self.keys[layer], self.values[layer])
        )
        return key[0, :, :count], value[0, :, :count]

    def fill(self, layer: int, key: np.ndarray, value: np.ndarray) -> None:
        """Write the first keys and values [Hkv, count, D] of a layer."""
        for place, new in ((self.keys[layer], key), (self.values[layer], value)):
            whole = place.read() if isinstance(place, DeviceArray) else place
            whole[0, :, : new.shape[1]] = new
            if isinstance(place, DeviceArray):
                place.write(whole)

    def _compact_numbers(self, layer: int, kept: np.ndarray) -> None:
        if layer not in self._row:
            return
        count = kept.shape[1]
        numbers = [self.token_index(layer), *(self.scalar(name, layer) for name in self._scalars)]
        for array in numbers:
            array[:, :count] = np.take_along_axis(array, kept, axis=1)
