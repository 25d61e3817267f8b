"""Runs the library that target `tvm:cpu` or `tvm:aarch64-linux` makes, on the caller's own buffers.

Of TVM it needs the runtime alone, 3 MB, loaded without TVM's Python: no compiler, no torch. The
weights are memory-mapped and handed over where they lie. A cache is written by the kernels where it
is bound: what an output `updates` is not even returned.
"""

import contextlib
import ctypes
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcc.artifact.cpu import lacking
from lcc.artifact.folder import read_listed
from lcc.artifact.manifest import Manifest, ProgramEntry
from lcc.artifact.schedule import TensorSpec
from lcc.artifact.weights_index import parse_index, weights_files
from lcc.errors import ArtifactError, CacheError, TargetError
from lcc.ir.roles import Role
from lcc.runtime.engines.device_array import Buffer
from lcc.runtime.engines.host_array import ALIGNMENT, zeros
from lcc.runtime.engines.private_copy import private_copy
from lcc.runtime.engines.tvm_weights import MappedWeights

TARGETS = ("tvm:cpu", "tvm:aarch64-linux")
_CPU, _NAIVE = 1, 1  # of the virtual machine: the kind of device, and memory that is not hoarded
_SHARED = -3  # of the thread pool: any thread on any of the cores


class TvmEngine:
    """One library with a function for every program, and one map of the weights.

    The virtual machine runs one program at a time: calls of all threads wait for each other.
    """

    def __init__(
        self, folder: str | Path, manifest: Manifest, *, threads: int | None = None
    ) -> None:
        """`threads`: None = as many as there are cores. They are those of all engines at once.

        Raises:
            TargetError: TVM is not installed, the artifact is for another engine, or for a CPU that
                can do more than this one.
            ArtifactError: the library or the weights are not what the manifest says.
        """
        if manifest.target not in TARGETS:
            raise TargetError(
                f'target is "{manifest.target}", this engine runs {", ".join(TARGETS)}'
            )
        if missing := lacking(manifest.cpu or ""):
            raise TargetError(
                f"the artifact was compiled for {manifest.cpu}, this machine lacks "
                f"{', '.join(missing)}; compile with --cpu and a level that it has"
            )
        self._ffi = _runtime()
        self._manifest = manifest
        files = {entry.file for entry in manifest.programs.values()}
        if len(files) != 1:
            raise ArtifactError(f"{folder}: {len(files)} libraries, wanted 1; compile anew")
        path = Path(folder) / (name := files.pop())
        data = read_listed(folder, manifest, name)
        try:
            library = _loaded(self._ffi, data, path)
            self._machine = library["vm_load_executable"]()
            self._machine["vm_initialization"](_CPU, 0, _NAIVE)
        except Exception as error:  # its own types share no other base
            line = str(error).splitlines()[0]
            raise ArtifactError(f"{path}: TVM cannot load it: {line}") from error
        self._machine_lock = _Lock(self._ffi, threads or os.cpu_count() or 1)
        weights, index = weights_files(manifest.target)
        self._index = parse_index(read_listed(folder, manifest, index), Path(folder) / index)
        if weights not in manifest.files:
            raise ArtifactError(f"{Path(folder) / weights}: the manifest does not list it")
        self._weights = MappedWeights(self._ffi, Path(folder) / weights)
        self._functions: dict[str, tuple[Any, list[Any]]] = {}  # with the weights

    def zeros(self, shape: Sequence[int], dtype: str, role: Role) -> np.ndarray:
        """See `Engine.zeros`."""
        return zeros(shape, dtype)

    def load_all(self) -> None:
        """See `Engine.load_all`."""
        for name in self._manifest.programs:
            self._load(name)

    def program(self, name: str) -> ProgramEntry:
        """See `Engine.program`."""
        return self._manifest.programs[name]

    def runner(self, program: str) -> "TvmRunner":
        """See `Engine.runner`."""
        return TvmRunner(self._ffi, self.program(program), *self._load(program), self._machine_lock)

    def _load(self, program: str) -> tuple[Any, list[Any]]:
        with self._machine_lock:
            if program not in self._functions:
                entry = self.program(program)
                try:
                    function = self._machine[program]
                    weights = [self._weights.tensor(each) for each in self._index[program]]
                    takes = int(self._machine["get_function_arity"](program))
                except (AttributeError, KeyError) as error:
                    raise ArtifactError(f"{entry.file}: no function {program} ({error})") from error
                if takes != (given := len(entry.inputs) + len(weights)):
                    raise ArtifactError(
                        f"{entry.file}: {program} takes {takes} tensors, by the manifest and "
                        f"the index of weights it would be {given}"
                    )
                self._functions[program] = function, weights
            return self._functions[program]


class _Lock:
    """One call of the virtual machine at a time, with as many threads as were asked for.

    Each thread that calls has a pool of its own, which is set up when it first comes.
    """

    def __init__(self, ffi: Any, threads: int) -> None:
        self._ffi, self._threads = ffi, threads
        self._lock, self._local = threading.RLock(), threading.local()

    def __enter__(self) -> None:
        self._lock.acquire()
        if not hasattr(self._local, "ready"):
            _set_threads(self._ffi, self._threads)
            self._local.ready = True

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _loaded(ffi: Any, data: bytes, path: Path) -> Any:
    """The library whose bytes were compared with the manifest, for as long as the process lives."""
    load = ffi.get_global_func("ffi.Module.load_from_file.so")
    library = load(private_copy(data, path), "so")
    ffi.get_global_func("ffi.ModuleGlobalsAdd")(library)
    return library


def _runtime() -> Any:
    """TVM's foreign function interface, with the runtime loaded."""
    spec = importlib.util.find_spec("tvm")
    if spec is None or not spec.submodule_search_locations:
        raise TargetError("tvm is not installed; pip install 'long-context-compiler[tvm]'")
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    with _without_torch():
        import tvm_ffi
    for name in ("libtvm_runtime.so", "libtvm_runtime_extra.so"):
        try:
            ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise TargetError(f"{folder / name}: cannot be loaded ({error})") from None
    return tvm_ffi


def _set_threads(ffi: Any, count: int) -> None:
    """Threads of all kernels. A pool has as many as there are cores in the list it is made with.

    Left alone, TVM takes every second core, whether or not two of them are one.
    """
    cores = [str(i % (os.cpu_count() or 1)) for i in range(count)]
    ffi.get_global_func("runtime.config_threadpool")(_SHARED, count, cores)


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tvm_ffi imports torch where it finds it: seconds, and 200 MB that nothing here uses."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        del sys.modules["torch"]


class TvmRunner:
    """See `Runner`: arrays of its own for a function of the library."""

    def __init__(
        self, ffi: Any, entry: ProgramEntry, function: Any, weights: list[Any], lock: _Lock
    ) -> None:
        self._ffi, self._entry, self._function, self._weights = ffi, entry, function, weights
        self._lock = lock
        self._inputs = {tensor.name: tensor for tensor in entry.inputs}
        self._outputs = {tensor.name: tensor for tensor in entry.outputs}
        self._places = {tensor.name: i for i, tensor in enumerate(entry.outputs)}
        self._updates = {source: output for output, source in entry.updates.items()}
        self._bound: dict[str, np.ndarray] = {}
        self._tensors: dict[str, Any] = {}  # of the bound inputs, as TVM sees them
        self._scratch: dict[str, np.ndarray] = {}

    def bind(self, arrays: Mapping[str, Buffer]) -> None:
        """See `Runner.bind`.

        Raises CacheError for an array that the kernels cannot work on where it lies: of another
        dtype or shape than the signature's, not C-contiguous, or not at a multiple of 64 bytes.
        """
        for name, array in arrays.items():
            self._bound[name] = array = self._checked(name, array)
            if array.ctypes.data % ALIGNMENT:
                raise CacheError(
                    f"{name}: the array lies at {array.ctypes.data:#x}, wanted a multiple of "
                    f"{ALIGNMENT} bytes: lcc.runtime.engines.host_array.zeros makes such ones"
                )
            if name in self._inputs:
                self._tensors[name] = self._ffi.from_dlpack(array)

    def __call__(self, arrays: Mapping[str, Buffer]) -> None:
        """See `Runner.__call__`."""
        given = {name: self._checked(name, array) for name, array in arrays.items()}
        if missing := self._inputs.keys() - self._bound.keys() - given.keys():
            raise KeyError(f"{self._entry.file}: no array for {', '.join(sorted(missing))}")
        every = self._bound | given
        self._check_sizes(every)
        tensors = {
            name: self._fed(name, given[name]) for name in self._inputs.keys() & given.keys()
        }
        args = [tensors.get(name) or self._tensors[name] for name in self._inputs]
        with self._lock:
            try:
                results = self._function(*args, *self._weights)
            except Exception as error:  # a kernel refuses, with an error of any type
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise CacheError(f"{self._entry.file}: {lines[-1]}") from error
        for name, place in self._places.items():
            source = self._entry.updates.get(name, "")
            if name in every or source in every:
                self._keep(name, every.get(name, every.get(source)), results[place])

    def _keep(self, name: str, target: Any, result: Any) -> None:
        """Copy a result to where it is bound, unless the kernels have written it there."""
        array = np.from_dlpack(result)
        if array.ctypes.data == target.ctypes.data:
            return
        if array.shape != target.shape or array.dtype != target.dtype:
            raise CacheError(
                f"{self._entry.file}: {name} came as {array.dtype} {list(array.shape)}, wanted "
                f"{target.dtype} {list(target.shape)}, as manifest.json says; compile it anew"
            )
        target[...] = array

    def _checked(self, name: str, array: object) -> np.ndarray:
        tensor = self._inputs.get(name) or self._outputs.get(name)
        if tensor is None:
            raise KeyError(f"{name} is no input or output of {self._entry.file}")
        return _checked(tensor, array)

    def _fed(self, name: str, array: np.ndarray) -> Any:
        """An input of one call; copied if it does not lie where vectors can be loaded."""
        if array.ctypes.data % ALIGNMENT or not array.flags.writeable:
            block = self._scratch.get(name)
            if block is None or block.size < array.size:
                block = self._scratch[name] = zeros([array.size], array.dtype)
            place = block[: array.size].reshape(array.shape)
            place[...] = array
            array = place
        return self._ffi.from_dlpack(array)

    def _check_sizes(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sizes of one name are the same in all inputs, and none is 0."""
        sizes: dict[str, int] = {}
        for tensor in self._inputs.values():
            for symbol, size in zip(tensor.shape, arrays[tensor.name].shape, strict=True):
                if isinstance(symbol, str) and (sizes.setdefault(symbol, size) != size or not size):
                    raise CacheError(
                        f"{self._entry.file}: {symbol} is {size} in {tensor.name}, wanted "
                        f"{sizes[symbol] or 'at least 1'}"
                    )


def _checked(tensor: TensorSpec, array: object) -> np.ndarray:
    """The array is what the signature says: kernels trust it."""
    if not isinstance(array, np.ndarray):
        raise CacheError(f"{tensor.name}: {type(array).__name__}, wanted a numpy array")
    if array.dtype != tensor.dtype:
        raise CacheError(f"{tensor.name}: dtype {array.dtype}, wanted {tensor.dtype}")
    fits = len(array.shape) == len(tensor.shape) and all(
        isinstance(size, str) or size == own
        for size, own in zip(tensor.shape, array.shape, strict=True)
    )
    if not fits:
        raise CacheError(f"{tensor.name}: shape {list(array.shape)}, wanted {[*tensor.shape]}")
    if not array.flags.c_contiguous:
        raise CacheError(f"{tensor.name}: the array is not C-contiguous")
    return array
