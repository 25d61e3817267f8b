"""Runs ONNX programs with ONNX Runtime, on the caller's own buffers.

Inputs and outputs are bound by address, so a step reads and writes the cache where it lies: in the
host's memory, or on a device. The kernel that updates a cache in place (GroupQueryAttention) does
so when the past and the present are one buffer; nothing of the cache's size is copied then.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lcc.artifact.cpu import adds_byte_products
from lcc.artifact.manifest import Manifest, ProgramEntry, TensorEntry
from lcc.errors import ArtifactError, TargetError
from lcc.runtime.engines import cuda_provider
from lcc.runtime.engines.base import Runner
from lcc.runtime.engines.device_array import Buffer, DeviceArray
from lcc.runtime.engines.padding import PaddedRunner, fixed_length
from lcc.runtime.kv_cache import zeros

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": cuda_provider.NAME,
    "mobile": "CPUExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
HOST = "CPUExecutionProvider"
ARENA_BYTES = 64 << 20  # of addresses; memory is taken where something is written


class OnnxRuntimeEngine:
    """One `InferenceSession` per file of the artifact, made when first asked for."""

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        """Nothing is loaded so far.

        threads     None = as many as ONNX Runtime finds cores
        device      None = the target's; cpu = the CPU, whatever it was compiled for

        Raises:
            TargetError: the artifact is for another engine, or for a device that is not here.
        """
        try:
            import onnxruntime
        except ImportError:
            raise TargetError("onnxruntime is not installed; pip install onnxruntime") from None
        self._onnxruntime = onnxruntime
        self._folder, self._manifest = Path(folder), manifest
        self._provider = _provider(manifest.target, device, onnxruntime.get_available_providers())
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 3
        if threads is not None:
            self._options.intra_op_num_threads = threads
        # Chunks differ in length, and a memory pattern is planned and kept for each length: the
        # peak doubles. The arena stays: with plain malloc the resident memory wanders, for every
        # thread's heap keeps what it once had.
        self._options.enable_mem_pattern = False
        # One arena for all programs, which run one after the other: what a chunk took serves the
        # LM head next. An arena each takes 28 MB more (docs/measure/arena.py).
        _register_arena()
        self._options.add_session_config_entry("session.use_env_allocators", "1")
        # Every session has threads of its own, which spin for a while when a run is over: those of
        # the last program would take the cores from the next one. They stop with the run.
        self._options.add_session_config_entry("session.force_spinning_stop", "1")
        if manifest.precision == "int8" and not adds_byte_products():
            # Their sum would be cut off at 16 bits; exact products take a third longer.
            self._options.add_session_config_entry("session.x64quantprecision", "1")
        # Programs for a GPU want the cache on it; on the CPU it is held in the same way.
        self._memory = None
        if manifest.target == "onnxruntime:cuda":
            self._memory = "cpu" if self._provider == HOST else "cuda"
        if self._provider == cuda_provider.NAME:
            self._options.add_session_config_entry(cuda_provider.RECORD, "1")
            self._start_device()
        self._sessions: dict[str, Any] = {}
        self._runners: dict[str, Runner] = {}

    def zeros(self, shape: Sequence[int], dtype: str) -> Buffer:
        """See `Engine.zeros`; raises TargetError where the device has no room."""
        if self._memory is None:
            return zeros(shape, dtype)
        return DeviceArray(shape, dtype, self._memory)

    def runner(self, program: str) -> Runner:
        """Load a program by its name in the manifest, once; programs of one file share it."""
        if program not in self._runners:
            entry = self._manifest.programs[program]
            runner = OnnxRuntimeRunner(self._session(entry.file), entry)
            length = fixed_length(entry)
            self._runners[program] = runner if length is None else PaddedRunner(runner, length)
        return self._runners[program]

    def _session(self, file: str) -> Any:
        if file not in self._sessions:
            options = cuda_provider.OPTIONS if self._provider == cuda_provider.NAME else {}
            providers = list(dict.fromkeys([self._provider, HOST]))
            try:
                session = self._onnxruntime.InferenceSession(
                    str(self._folder / file),
                    self._options,
                    providers=providers,
                    provider_options=[options, *({} for _ in providers[1:])],
                )
            except Exception as error:  # its own types share no other base
                line = str(error).splitlines()[0]
                raise ArtifactError(
                    f"{self._folder / file}: ONNX Runtime cannot load it: {line}"
                ) from error
            self._check_place(file, session)
            self._sessions[file] = session
        return self._sessions[file]

    def _start_device(self) -> None:
        """Ask for memory on the GPU: onnxruntime-gpu names its provider where it cannot start."""
        try:
            DeviceArray((1,), "float16", "cuda")
        except TargetError as error:
            raise self._not_started() from error

    def _not_started(self) -> TargetError:
        return TargetError(
            f"{self._manifest.target}: ONNX Runtime could not start {self._provider}: a library or "
            f'the driver is missing; on the CPU it runs if you ask for it: device="cpu", or '
            "--device cpu"
        )

    def _check_place(self, file: str, session: Any) -> None:
        """The program runs where it was compiled for, not quietly on the CPU."""
        if self._provider not in session.get_providers():
            raise self._not_started()
        if self._provider == cuda_provider.NAME and (names := cuda_provider.misplaced(session)):
            raise TargetError(
                f"{self._folder / file}: ONNX Runtime runs {', '.join(names)} on the CPU, having "
                f"no kernel for {self._manifest.target}; install a newer onnxruntime-gpu"
            )


def _provider(target: str, device: str | None, available: Sequence[str]) -> str:
    engine, _, compiled = target.partition(":")
    if engine != "onnxruntime" or compiled not in PROVIDERS:
        wanted = ", ".join(f"onnxruntime:{name}" for name in PROVIDERS)
        raise TargetError(f'target is "{target}", this engine runs {wanted}')
    if device not in (None, compiled, "cpu"):
        raise TargetError(f"device is {device!r}, target {target} runs on {compiled}, or on cpu")
    provider = PROVIDERS[device or compiled]
    if provider not in available:
        raise TargetError(
            f"target is {target}, this ONNX Runtime has only {', '.join(available)}; on the CPU it "
            'runs if you ask for it: device="cpu", or --device cpu'
        )
    return provider


@cache
def _register_arena() -> None:
    """The arena of this process, once; sessions that do not ask for it keep one of their own.

    It begins with one region that is large enough for most chunks. From 1 MB it would grow by
    regions twice as large, and what lies in the smaller ones cannot serve what is larger.
    """
    import onnxruntime

    kind, memory = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
    place = onnxruntime.OrtMemoryInfo("Cpu", kind.ORT_ARENA_ALLOCATOR, 0, memory.DEFAULT)
    config = onnxruntime.OrtArenaCfg({"initial_chunk_size_bytes": ARENA_BYTES})
    onnxruntime.create_and_register_allocator(place, config)


class OnnxRuntimeRunner:
    """One program: its signature over a session that other programs may share."""

    def __init__(self, session: Any, entry: ProgramEntry) -> None:
        self._session, self._entry = session, entry
        self._inputs = {tensor.name: tensor for tensor in entry.inputs}
        self._outputs = {tensor.name: tensor for tensor in entry.outputs}
        self._symbols = {  # inputs that have some
            tensor.name: tensor.shape
            for tensor in entry.inputs
            if any(isinstance(size, str) for size in tensor.shape)
        }
        self._bound: dict[str, Buffer] = {}
        self._bindings: dict[tuple[str, ...], Any] = {}  # fetched names -> binding
        self._fed: dict[tuple[str, ...], Mapping[str, np.ndarray]] = {}  # keeps addresses valid
        self._scratch: dict[str, np.ndarray] = {}
        known = {size for tensor in entry.inputs for size in tensor.shape}
        for tensor in entry.outputs:
            if unknown := {size for size in tensor.shape if isinstance(size, str)} - known:
                raise ArtifactError(
                    f"{entry.file}: output {tensor.name} has size {', '.join(sorted(unknown))}, "
                    "which no input has"
                )

    def bind(self, arrays: Mapping[str, Buffer]) -> None:
        """See `Runner.bind`; the arrays are C-contiguous and of the signature's dtype."""
        for name, array in arrays.items():
            if name not in self._inputs and name not in self._outputs:
                raise KeyError(f"{name} is no input or output of {self._entry.file}")
            self._bound[name] = array
        for output, source in self._entry.updates.items():
            if source in arrays and output not in arrays:
                self._bound[output] = arrays[source]
        for binding in self._bindings.values():
            self._point(binding, self._bound)

    def __call__(
        self, feeds: Mapping[str, np.ndarray], fetch: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """See `Runner.__call__`."""
        key = tuple(fetch)
        if key not in self._bindings:
            self._bindings[key] = self._session.io_binding()
            self._point(self._bindings[key], self._bound)
        if missing := self._inputs.keys() - self._bound.keys() - feeds.keys():
            raise KeyError(f"{self._entry.file}: no array for {', '.join(sorted(missing))}")
        sizes = self._sizes({**self._bound, **feeds})
        results = {name: self._result(self._outputs[name], sizes) for name in fetch}
        self._point(self._bindings[key], {**feeds, **results})
        self._fed[key] = feeds
        self._session.run_with_iobinding(self._bindings[key])
        return results

    def _point(self, binding: Any, arrays: Mapping[str, Buffer]) -> None:
        """Bind arrays by address, or as they lie on a device, each as what its name says.

        The last binding of a name counts.
        """
        for name, array in arrays.items():
            is_input = name in self._inputs
            if isinstance(array, DeviceArray):
                bind = binding.bind_ortvalue_input if is_input else binding.bind_ortvalue_output
                bind(name, array.value)
                continue
            if not array.flags.c_contiguous:
                raise ValueError(f"{name}: the array is not C-contiguous")
            bind = binding.bind_input if is_input else binding.bind_output
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def _sizes(self, arrays: Mapping[str, Buffer]) -> dict[str, int]:
        """Value of each symbol of the signature, read off the inputs."""
        return {
            symbol: size
            for name, axes in self._symbols.items()
            for symbol, size in zip(axes, arrays[name].shape, strict=True)
            if isinstance(symbol, str)
        }

    def _result(self, tensor: TensorEntry, sizes: Mapping[str, int]) -> np.ndarray:
        """The array to write an output to: the beginning of one block that grows to the largest."""
        shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
        count = int(np.prod(shape))
        block = self._scratch.get(tensor.name)
        if block is None or block.size < count:
            block = self._scratch[tensor.name] = zeros([count], tensor.dtype)
        return block[:count].reshape(shape)
