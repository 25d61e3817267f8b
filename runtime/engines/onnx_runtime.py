"""Runs ONNX programs with ONNX Runtime, on the caller's own buffers.

Inputs and outputs are bound by address, so a step reads and writes the cache where it lies: in the
host's memory, or on a device. The kernel that updates a cache in place (GroupQueryAttention) does
so when the past and the present are one buffer; nothing of the cache's size is copied then.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lcc.artifact.cpu import adds_byte_products
from lcc.artifact.folder import read_listed
from lcc.artifact.manifest import Manifest, ProgramEntry
from lcc.errors import ArtifactError, TargetError
from lcc.ir.roles import Role
from lcc.runtime.engines import cuda_provider
from lcc.runtime.engines.device_array import Buffer, DeviceArray
from lcc.runtime.engines.host_array import zeros
from lcc.runtime.engines.limits import Watch, buffers_bytes
from lcc.runtime.engines.onnx_arena import arena
from lcc.runtime.engines.onnx_file import check_program
from lcc.runtime.engines.onnx_runner import OnnxRuntimeRunner
from lcc.runtime.engines.onnx_signature import check_signature

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": cuda_provider.NAME,
    "mobile": "CPUExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
HOST = "CPUExecutionProvider"


class OnnxRuntimeEngine:
    """One `InferenceSession` per file of the artifact, made when first asked for.

    Sessions and threads share it: ONNX Runtime runs one `InferenceSession` from many threads.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        device: str | None = None,
        mapped: bool = False,
        memory_limit: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        """Nothing is loaded so far.

        threads     None = as many as ONNX Runtime finds cores
        device      None = the target's; cpu = the CPU, whatever it was compiled for
        mapped      kernels read the weights where the file is mapped, and pack no copies of them
        memory_limit    bytes, of what the programs take besides buffers; None = any
        time_limit      seconds of one call of a program; None = any

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
        files = {self._folder / each.file for each in manifest.programs.values()}
        self._linked = any(path.is_symlink() for path in files)
        if not self._linked:
            weights = str(self._folder.resolve())
            self._options.add_session_config_entry(FOLDER_OF_WEIGHTS, weights)
        if threads is not None:
            self._options.intra_op_num_threads = threads
        if mapped:
            self._options.add_session_config_entry("session.disable_prepacking", "1")
        # Chunks differ in length, and a memory pattern is planned and kept for each length: the
        # peak doubles. The arena stays: with plain malloc the resident memory wanders, for every
        # thread's heap keeps what it once had.
        self._options.enable_mem_pattern = False
        # One arena for all programs, which run one after the other: what a chunk took serves the
        # LM head next. An arena each takes 28 MB more (docs/measure/arena.py).
        self._arena_bytes = 0
        if memory_limit is not None:
            self._arena_bytes = max(1, memory_limit - buffers_bytes(manifest))
        self._watch = None if time_limit is None else Watch(time_limit)
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
        self._checked: set[str] = set()  # programs whose file is what the manifest says
        self._loading = threading.Lock()

    def zeros(self, shape: Sequence[int], dtype: str, role: Role) -> Buffer:
        """See `Engine.zeros`; raises TargetError where the device has no room."""
        if self._memory is None or role not in (Role.KEY, Role.VALUE):
            return zeros(shape, dtype)
        return DeviceArray(shape, dtype, self._memory)

    def load_all(self) -> None:
        """See `Engine.load_all`."""
        for name in self._manifest.programs:
            self._load(name)

    def program(self, name: str) -> ProgramEntry:
        """See `Engine.program`."""
        return self._manifest.programs[name]

    def runner(self, program: str) -> "OnnxRuntimeRunner":
        """See `Engine.runner`; programs of one file share what is loaded."""
        session, entry = self._load(program), self.program(program)
        copies = self._provider == cuda_provider.NAME
        return OnnxRuntimeRunner(session, entry, copies=copies, watch=self._watch)

    def _load(self, program: str) -> Any:
        """The session of a program, which has the inputs and outputs that the manifest says.

        Raises:
            ArtifactError: it cannot be loaded, or is not what the manifest says.
            TargetError: it does not run on the device that it was compiled for.
        """
        entry = self.program(program)
        with self._loading:
            session = self._session(entry.file)
            if program not in self._checked:
                try:
                    check_signature(session, entry)
                except ArtifactError as error:
                    raise ArtifactError(f"{self._folder / entry.file}: {error}") from None
                self._checked.add(program)
        return session

    def _session(self, file: str) -> Any:
        if file not in self._sessions:
            program = self._program(file)
            options = cuda_provider.OPTIONS if self._provider == cuda_provider.NAME else {}
            providers = list(dict.fromkeys([self._provider, HOST]))
            try:
                with arena(self._arena_bytes):
                    session = self._onnxruntime.InferenceSession(
                        program,
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

    def _program(self, file: str) -> str | bytes:
        """What ONNX Runtime loads: the bytes that were compared with the manifest, or a path.

        A file in ORT format has its weights in it, and names no other file. Of bytes, weights are
        sought in one folder, and none behind links (of a hub's cache): those have a path, too. What
        a path stands for is compared when all is loaded (`check_unchanged`).
        """
        path = self._folder / file
        if path.suffix == ".ort":
            return str(path)
        data = read_listed(self._folder, self._manifest, file)
        try:
            check_program(data, self._manifest.files)
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from None
        return str(path) if self._linked else data

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
