"""Runs an artifact: numpy, one engine and a tokenizer; no torch.

model = lcc.runtime.load("smollm2.lcc")      weights and programs, once
session = model.session()                    buffers and a text; any number of them
session = lcc.runtime.open("smollm2.lcc")    both in one
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lcc.artifact.code import check_code
from lcc.artifact.folder import check_unchanged, verify_files
from lcc.artifact.manifest import (
    MANIFEST,
    Manifest,
    for_target,
    manifest_data,
    parse_manifest,
    targets_of,
)
from lcc.errors import ConfigError, LccError, TargetError, TrustError
from lcc.runtime.engines.base import Engine
from lcc.runtime.library import native_library
from lcc.runtime.model import Model
from lcc.runtime.resident import paged_out, trim
from lcc.runtime.session import Session
from lcc.runtime.text.tokenizer import Tokenizer

__all__ = ["Model", "Session", "load", "native_library", "open"]

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

    Raises:
        ArtifactError: the artifact is missing, damaged or newer than this lcc.
        ConfigError: an argument that cannot be.
        TargetError: the engine is not installed, or its device not there.
        TrustError: all that could run here is machine code, and it is not allowed; or no trusted
            key has signed the artifact.
    """
    begin = time.perf_counter()
    data = manifest_data(folder)
    if trusted_keys is not None:
        _check_signed(folder, data, trusted_keys, verify)
        allow_native = True
    whole = parse_manifest(data, Path(folder) / MANIFEST)
    manifest = for_target(whole, target or whole.target)
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, wanted 1 or more")
    stamps = verify_files(folder, whole, level=verify)
    if engine is None:
        manifest, engine = _choose(
            folder, whole, target, threads, device, mapped=mapped, allow_native=allow_native
        )
    with contextlib.nullcontext() if mapped else paged_out(folder):
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


def _choose(
    folder: str | Path,
    manifest: Manifest,
    target: str | None,
    threads: int | None,
    device: Any,
    *,
    mapped: bool,
    allow_native: bool,
) -> tuple[Manifest, Engine]:
    """The first target that can and may run here, or the one that was named."""
    errors = list[LccError]()
    for name in targets_of(manifest) if target is None else [target]:
        chosen = for_target(manifest, name)
        try:
            check_code(folder, chosen, allowed=allow_native)
            return chosen, _engine(folder, chosen, threads, device, mapped=mapped)
        except (TargetError, TrustError) as error:
            errors.append(error)
    raise errors[0]


def _engine(
    folder: str | Path,
    manifest: Manifest,
    threads: int | None,
    device: Any,
    *,
    mapped: bool = False,
) -> Engine:
    """What runs the programs of a manifest's target."""
    if manifest.target == "reference":
        raise TargetError(
            f"{folder} is for target reference, which is PyTorch and no part of the runtime; give "
            "engine=lcc.targets.reference.open_engine(folder, manifest), or use `lcc run`"
        )
    if mapped and manifest.target.rpartition(":")[2] in _ON_A_DEVICE:
        raise TargetError(
            f"{manifest.target} copies its weights to the device; wanted a target whose weights "
            "can stay in their file: onnxruntime:cpu, onnxruntime:mobile, tvm:cpu"
        )
    if manifest.target.startswith("tvm"):
        from lcc.runtime.engines.tvm_relax import TvmEngine

        return TvmEngine(folder, manifest, threads=threads)
    from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(folder, manifest, threads=threads, device=device, mapped=mapped)
