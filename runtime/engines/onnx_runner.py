"""Runs a program of ONNX Runtime on arrays of the caller."""

from collections.abc import Mapping
from typing import Any

from lcc.artifact.manifest import ProgramEntry
from lcc.errors import ArtifactError, LimitError, first_line
from lcc.runtime.engines.device_array import Buffer, DeviceArray
from lcc.runtime.engines.limits import Watch


class OnnxRuntimeRunner:
    """See `Runner`: a binding of its own over a session that others share."""

    def __init__(
        self,
        session: Any,
        entry: ProgramEntry,
        *,
        copies: bool = False,
        watch: Watch | None = None,
    ) -> None:
        """`copies`: inputs of the host are copied to a device when they are bound."""
        self._watch, self._options = watch, None
        if watch is not None:
            import onnxruntime

            self._options = onnxruntime.RunOptions()
        self._session, self._entry, self._copies = session, entry, copies
        self._inputs = {tensor.name for tensor in entry.inputs}
        self._outputs = {tensor.name for tensor in entry.outputs}
        self._updates = {source: output for output, source in entry.updates.items()}
        self._binding = session.io_binding()
        self._bound: dict[str, Buffer] = {}
        self._again: dict[str, Buffer] = {}  # bound inputs that are bound for every call
        self._given: dict[str, Buffer] = {}  # of the last call: keeps addresses valid

    def bind(self, arrays: Mapping[str, Buffer]) -> None:
        """See `Runner.bind`."""
        for name in arrays:
            if name not in self._inputs and name not in self._outputs:
                raise KeyError(f"{name} is no input or output of {self._entry.file}")
        new = self._with_updates(arrays)
        self._bound |= new
        if self._copies:
            host = {n: array for n, array in new.items() if not isinstance(array, DeviceArray)}
            self._again |= {name: array for name, array in host.items() if name in self._inputs}
        self._point(new)

    def __call__(self, arrays: Mapping[str, Buffer]) -> None:
        """See `Runner.__call__`."""
        if missing := self._inputs - self._bound.keys() - arrays.keys():
            raise KeyError(f"{self._entry.file}: no array for {', '.join(sorted(missing))}")
        given = self._with_updates(arrays)
        if self._given.keys() - given.keys():  # what the last call had, and this one has not
            self._binding.clear_binding_inputs()
            self._binding.clear_binding_outputs()
            self._point(self._bound)
        self._given = given
        self._point(self._again | given)
        try:
            if self._watch is None:
                self._session.run_with_iobinding(self._binding)
            else:
                with self._watch.over(self._options):
                    self._session.run_with_iobinding(self._binding, self._options)
        except LimitError as error:
            raise LimitError(f"{self._entry.file}: {error}") from error
        except Exception as error:  # its own types share no other base
            raise ArtifactError(
                f"{self._entry.file}: ONNX Runtime cannot run it: {first_line(error)}"
            ) from error

    def _with_updates(self, arrays: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """The arrays, also under the names of the outputs that replace what is in them."""
        replaced = {
            self._updates[name]: array for name, array in arrays.items() if name in self._updates
        }
        return replaced | dict(arrays)

    def _point(self, arrays: Mapping[str, Buffer]) -> None:
        """Bind arrays by address, or as they lie on a device, each as what its name says.

        The last binding of a name counts.
        """
        for name, array in arrays.items():
            is_input = name in self._inputs
            if isinstance(array, DeviceArray):
                bind = (
                    self._binding.bind_ortvalue_input
                    if is_input
                    else self._binding.bind_ortvalue_output
                )
                bind(name, array.value)
                continue
            if not array.flags.c_contiguous:
                raise ValueError(f"{name}: the array is not C-contiguous")
            bind = self._binding.bind_input if is_input else self._binding.bind_output
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
