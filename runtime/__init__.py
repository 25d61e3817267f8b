"""Runs an artifact: numpy, one engine and a tokenizer; no torch.

model = lcc.runtime.load("smollm2.lcc")      weights and programs, once
session = model.session()                    buffers and a text; any number of them
session = lcc.runtime.open("smollm2.lcc")    both in one
"""

import contextlib
import time
from pathlib import Path
from typing import Any, Literal

from lcc.artifact.folder import check_unchanged, verify_files
from lcc.artifact.manifest import Manifest, for_target, read_manifest, targets_of
from lcc.errors import ConfigError, TargetError
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
) -> Model:
    """Open an artifact: read and verify it, load its weights and all of its programs.

    Args:
        folder: The artifact.
        threads: Of the engine; None = as many as there are cores.
        target: Of those that it was compiled for; None = the first one that can run here.
        device: "cpu" = not on what the artifact was compiled for, which is slow and shows what
            it computes; None = there, or not at all.
        engine: None = the one that the artifact's target asks for.
        verify: "size" leaves out the hashes of the files.
        mapped: Leave the weights in their file and read them as they are used, so that the system
            may drop them: for a model that is larger than the memory. A step takes longer. TVM
            always does, and has the weights as its kernels want them in the file.

    Raises:
        ArtifactError: the artifact is missing, damaged or newer than this lcc.
        ConfigError: an argument that cannot be.
        TargetError: the engine is not installed, or its device not there.
    """
    begin = time.perf_counter()
    whole = read_manifest(folder)
    manifest = for_target(whole, target or whole.target)
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, wanted 1 or more")
    stamps = verify_files(folder, whole, level=verify)
    if engine is None:
        manifest, engine = _choose(folder, whole, target, threads, device, mapped=mapped)
    with contextlib.nullcontext() if mapped else paged_out(folder):
        engine.load_all()
    tokenizer = Tokenizer(folder, manifest.files)
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


def _choose(
    folder: str | Path,
    manifest: Manifest,
    target: str | None,
    threads: int | None,
    device: Any,
    *,
    mapped: bool,
) -> tuple[Manifest, Engine]:
    """The first target that can run here, or the one that was named."""
    errors = []
    for name in targets_of(manifest) if target is None else [target]:
        chosen = for_target(manifest, name)
        try:
            return chosen, _engine(folder, chosen, threads, device, mapped=mapped)
        except TargetError as error:
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
