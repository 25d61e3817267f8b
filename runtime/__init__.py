"""Runs an artifact: numpy, one engine and a tokenizer; no torch.

model = lcc.runtime.load("smollm2.lcc")      weights and programs, once
session = model.session()                    buffers and a text; any number of them
session = lcc.runtime.open("smollm2.lcc")    both in one
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lcc.artifact.code import check_code
from lcc.artifact.folder import ReplacedError, check_unchanged, stamp_of, verify_files
from lcc.artifact.manifest import (
    MANIFEST,
    Manifest,
    for_target,
    manifest_data,
    parse_manifest,
    targets_of,
)
from lcc.artifact.replace import being_loaded
from lcc.errors import ArtifactError, ConfigError, LccError, TargetError, TrustError
from lcc.runtime.engines.base import Engine
from lcc.runtime.engines.limits import check_limits, check_memory
from lcc.runtime.library import native_library
from lcc.runtime.model import Model
from lcc.runtime.resident import paged_out, trim
from lcc.runtime.session import Session
from lcc.runtime.text.tokenizer import Tokenizer

__all__ = ["Model", "Session", "load", "native_library", "open"]

TRIES = 4  # to load an artifact whose folder is replaced meanwhile
_ON_A_DEVICE = ("cuda", "nnapi", "coreml")  # where weights are copied to


def load(
    folder: str | Path,
    *,
    threads: int | None = None,
    target: str | None = None,
    device: Literal["cpu"] | None = None,
    engine: Engine | None = None,
    verify: Literal["full", "size"] = "full",
    mapped: bool = False,
    allow_native: bool = False,
    trusted_keys: Sequence[str | Path] | None = None,
    memory_limit: int | None = None,
    time_limit: float | None = None,
) -> Model:
    """Open an artifact: read and verify it, load its weights and all of its programs.

    Args:
        folder: The artifact.
        threads: Of the engine; None = as many as there are cores.
        target: Of those that it was compiled for; None = the first one that can run here.
        device: "cpu" = not on what the artifact was compiled for, which is slow and shows what
            it computes; None = there, or not at all.
        engine: None = the one that the artifact's target asks for.
        verify: "size" leaves out the hashes of all files but the programs.
        mapped: Leave the weights in their file and read them as they are used, so that the system
            may drop them: for a model that is larger than the memory. A step takes longer. TVM
            always does, and has the weights as its kernels want them in the file.
        allow_native: Machine code of the artifact may run in this process: what TVM's targets are
            made of. Say so only where you trust whoever made it.
        trusted_keys: Public keys of minisign, as text or files: the artifact must be signed by one
            of them, and may run machine code then. None = no signature is looked for.
        memory_limit: Bytes that the artifact may take by its memory table, its buffers included;
            the engine's own memory is held to it, too.
        time_limit: Seconds that one call of a program may take, of thousands in a long text. Stop
            a whole text with `stop` of `feed` and `callback` of `generate`.

    Raises:
        ArtifactError: the artifact is missing, damaged or newer than this lcc.
        ConfigError: an argument that cannot be.
        LimitError: the artifact takes more memory than is allowed; later, a program that ran for
            too long.
        TargetError: the engine is not installed, or its device not there.
        TrustError: all that could run here is machine code, and it is not allowed; or no trusted
            key has signed the artifact.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, wanted 1 or more")
    check_limits(memory_limit, time_limit)
    how = _How(threads, target, device, mapped, allow_native, memory_limit, time_limit)
    for _ in range(TRIES):
        with being_loaded(folder):
            before = stamp_of(folder)
            try:
                return _load(folder, how, engine, verify, trusted_keys)
            except ArtifactError as error:
                same = stamp_of(folder) == before
                if same and not isinstance(error, ReplacedError):  # else another one came between
                    raise
    raise ArtifactError(
        f"{folder}: replaced again and again while it was loaded; load it when nothing writes to it"
    )


@dataclass(frozen=True)
class _How:
    """What `load` was asked for, besides the folder and what is checked of it."""

    threads: int | None = None
    target: str | None = None
    device: Any = None
    mapped: bool = False
    allow_native: bool = False
    memory_limit: int | None = None
    time_limit: float | None = None


def _load(
    folder: str | Path,
    how: _How,
    engine: Engine | None,
    verify: Literal["full", "size"],
    trusted_keys: Sequence[str | Path] | None,
) -> Model:
    """The model, of one artifact as a whole."""
    begin = time.perf_counter()
    data = manifest_data(folder)
    if trusted_keys is not None:
        _check_signed(folder, data, trusted_keys, verify)
        how = replace(how, allow_native=True)
    whole = parse_manifest(data, Path(folder) / MANIFEST)
    manifest = for_target(whole, how.target or whole.target)
    if how.memory_limit is not None:
        check_memory(manifest, how.memory_limit)
    stamps = verify_files(folder, whole, level=verify)
    if engine is None:
        manifest, engine = _choose(folder, whole, how)
    with contextlib.nullcontext() if how.mapped else paged_out(folder):
        engine.load_all()
    tokenizer = Tokenizer(folder, manifest.files, manifest.text)
    check_unchanged(stamps)
    trim()
    return Model(manifest, tokenizer, engine, time.perf_counter() - begin)


def open(
    folder: str | Path,
    *,
    capacity: int | None = None,
    budget: int | None = None,
    chunk_size: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    target: str | None = None,
    device: Literal["cpu"] | None = None,
    engine: Engine | None = None,
    verify: Literal["full", "size"] = "full",
    archive: str | Path | None = None,
    archive_dtype: str = "float16",
    archive_limit: int | None = None,
    mapped: bool = False,
    allow_native: bool = False,
    trusted_keys: Sequence[str | Path] | None = None,
    memory_limit: int | None = None,
    time_limit: float | None = None,
) -> Session:
    """Open an artifact for one session: `load(...).session(...)`, which see."""
    model = load(
        folder,
        threads=threads,
        target=target,
        device=device,
        engine=engine,
        verify=verify,
        mapped=mapped,
        allow_native=allow_native,
        trusted_keys=trusted_keys,
        memory_limit=memory_limit,
        time_limit=time_limit,
    )
    return model.session(
        capacity=capacity,
        budget=budget,
        chunk_size=chunk_size,
        seed=seed,
        archive=archive,
        archive_dtype=archive_dtype,
        archive_limit=archive_limit,
    )


def _check_signed(
    folder: str | Path, data: bytes, trusted_keys: Sequence[str | Path], verify: str
) -> None:
    """A trusted key has signed the manifest, by whose hashes every file is compared then."""
    from lcc.artifact.minisign import read_public_key
    from lcc.artifact.signature import check_signature

    if not trusted_keys or isinstance(trusted_keys, str):
        raise ConfigError(f"trusted_keys is {trusted_keys!r}, wanted a list of public keys")
    if verify != "full":
        raise ConfigError(
            'verify is "size" and trusted_keys is given: a signature stands for files whose hashes '
            "are compared; leave one of the two out"
        )
    check_signature(folder, data, [read_public_key(each) for each in trusted_keys])


def _choose(folder: str | Path, manifest: Manifest, how: _How) -> tuple[Manifest, Engine]:
    """The first target that can and may run here, or the one that was named."""
    errors = list[LccError]()
    for name in targets_of(manifest) if how.target is None else [how.target]:
        chosen = for_target(manifest, name)
        try:
            check_code(folder, chosen, allowed=how.allow_native)
            return chosen, _engine(folder, chosen, how)
        except (TargetError, TrustError) as error:
            errors.append(error)
    raise errors[0]


def _engine(folder: str | Path, manifest: Manifest, how: _How) -> Engine:
    """What runs the programs of a manifest's target."""
    if manifest.target == "reference":
        raise TargetError(
            f"{folder} is for target reference, which is PyTorch and no part of the runtime; give "
            "engine=lcc.targets.reference.open_engine(folder, manifest), or use `lcc run`"
        )
    if how.mapped and manifest.target.rpartition(":")[2] in _ON_A_DEVICE:
        raise TargetError(
            f"{manifest.target} copies its weights to the device; wanted a target whose weights "
            "can stay in their file: onnxruntime:cpu, onnxruntime:mobile, tvm:cpu"
        )
    if manifest.target.startswith("tvm"):
        from lcc.runtime.engines.tvm_relax import TvmEngine

        if how.time_limit is not None:
            raise TargetError(
                f"{manifest.target}: machine code cannot be stopped, and time_limit is given; "
                "leave it out, or take a target onnxruntime:*"
            )
        return TvmEngine(folder, manifest, threads=how.threads)
    from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(
        folder,
        manifest,
        threads=how.threads,
        device=how.device,
        mapped=how.mapped,
        memory_limit=how.memory_limit,
        time_limit=how.time_limit,
    )
