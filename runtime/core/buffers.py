"""The memory of one session: every tensor that lives longer than one call, allocated once."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lcc.artifact.schedule import BufferSpec
from lcc.errors import ArtifactError, CacheError
from lcc.ir.roles import Role
from lcc.runtime.engines.base import Engine
from lcc.runtime.engines.device_array import Buffer


class Buffers:
    """Arrays by name, as `BufferSpec` says.

    specs       name -> what the manifest says of it
    arrays      name -> the memory that bears this name now
    longest     the most rows that any of them has
    version     how often memory has changed its name: what is bound holds until it changes
    """

    def __init__(
        self, specs: Sequence[BufferSpec], numbers: Mapping[str, int], engine: Engine
    ) -> None:
        """Allocate all of them, as zeros; `numbers`: the sizes that shapes name.

        Raises:
            CacheError: there is not enough memory.
        """
        self.specs = {spec.name: spec for spec in specs}
        self.arrays: dict[str, Buffer] = {}
        self.version, self._engine = 0, engine
        self._grown: list[str] = []
        for spec in specs:
            self._allocate(spec, numbers)
        self.longest = max(self.arrays[spec.name].shape[spec.axis] for spec in specs)

    def _allocate(self, spec: BufferSpec, numbers: Mapping[str, int]) -> None:
        shape = [max(1, numbers[size]) if isinstance(size, str) else size for size in spec.shape]
        try:
            self.arrays[spec.name] = self._engine.zeros(shape, spec.dtype, spec.role)
        except (MemoryError, ValueError, OverflowError) as error:  # numpy's, of sizes beyond 2^63
            raise CacheError(
                f"{spec.name}: no memory for {spec.dtype} {shape} ({error}); ask for fewer slots "
                "(capacity, budget), or compile with fewer"
            ) from None

    def grow(self, names: Sequence[str], numbers: Mapping[str, int]) -> None:
        """Allocate buffers anew, as zeros, with the sizes that numbers have now."""
        for name in names:
            self._allocate(self.specs[name], numbers)
            self._grown.append(name)
        self.version += 1

    def shrink(self) -> None:
        """Give the memory back that buffers have grown by."""
        grown, self._grown = self._grown, []
        for name in grown:
            sizes = {size: 1 for size in self.specs[name].shape if isinstance(size, str)}
            self._allocate(self.specs[name], sizes)
        self.version += 1

    def saved(self, numbers: Mapping[str, int]) -> Iterator[tuple[BufferSpec, int, list[int]]]:
        """Every buffer that a saved state holds, the first of its rows there, and their shape."""
        for spec in [spec for spec in self.specs.values() if spec.saved is not None]:
            (first, end), shape = (
                (numbers[n] for n in spec.saved or ()),
                [*self.arrays[spec.name].shape],
            )
            _check_rows(spec.name, first, end, shape[spec.axis])
            shape[spec.axis] = end - first
            yield spec, first, shape

    def clear(self) -> None:
        """Zeros again, but for what no program reads before it is written."""
        written = {Role.KEY, Role.VALUE, Role.QUERIES}
        for name, array in self.arrays.items():
            if isinstance(array, np.ndarray) and self.specs[name].role not in written:
                array.fill(0)

    def host(self, name: str) -> np.ndarray:
        """A buffer that no device holds, such as a state."""
        array = self.arrays[name]
        assert isinstance(array, np.ndarray), name
        return array

    def swap(self, one: str, other: str) -> None:
        """Exchange the memory of two buffers."""
        arrays = self.arrays
        arrays[one], arrays[other] = arrays[other], arrays[one]
        self.version += 1

    def rows(self, name: str, first: int, end: int, axis: int | None = None) -> np.ndarray:
        """Rows first .. end-1: a view, or a copy from a device.

        axis    None = the buffer's axis of rows

        Raises:
            ArtifactError: the buffer has no such rows; the schedule is wrong.
        """
        array, axis = self.arrays[name], self.specs[name].axis if axis is None else axis
        _check_rows(name, first, end, array.shape[axis])
        return array[(slice(None),) * axis + (slice(first, end),)]

    def write_rows(self, name: str, first: int, rows: np.ndarray) -> None:
        """Write rows along the axis of rows, from `first` on, in the buffer's dtype.

        Raises:
            ArtifactError: the buffer has no such rows; the schedule is wrong.
        """
        array, axis = self.arrays[name], self.specs[name].axis
        end = first + rows.shape[axis]
        _check_rows(name, first, end, array.shape[axis])
        array[(slice(None),) * axis + (slice(first, end),)] = rows


def _check_rows(name: str, first: int, end: int, count: int) -> None:
    """Refuse rows that a buffer of so many does not have."""
    if not 0 <= first <= end <= count:
        raise ArtifactError(f"{name}: rows {first} .. {end - 1} of {count}")
