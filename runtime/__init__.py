"""Runs an artifact: numpy, one engine and a tokenizer; no torch.

session = lcc.runtime.load("smollm2.lcc")
"""

import time
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

from lcc.artifact.folder import verify_files
from lcc.artifact.manifest import Manifest, for_target, read_manifest, targets_of
from lcc.config import CacheConfig
from lcc.errors import CacheError, ConfigError, TargetError
from lcc.runtime.engines.base import Engine
from lcc.runtime.resident import page_out, trim
from lcc.runtime.session import Session
from lcc.runtime.text.tokenizer import Tokenizer

__all__ = ["Session", "load"]

# id of an engine -> the session that it serves, which keeps it alive as long as it lives itself
_served: WeakValueDictionary[int, Session] = WeakValueDictionary()


def load(
    folder: str | Path,
    *,
    capacity: int | None = None,
    budget: int | None = None,
    chunk_size: int | None = None,
    threads: int | None = None,
    target: str | None = None,
    device: Literal["cpu"] | None = None,
    engine: Engine | None = None,
    verify: Literal["full", "size"] = "full",
) -> Session:
    """Open an artifact: read and verify it, load its programs, allocate the cache once.

    capacity, budget, chunk_size    lower than compiled, to take less memory; None = as compiled
    threads                         of the engine; None = as many as there are cores
    target                          of those that it was compiled for; None = the first one that
                                    can run here
    device                          "cpu" = not on what the artifact was compiled for, which is
                                    slow and shows what it computes; None = there, or not at all
    engine                          None = the one that the artifact's target asks for; it serves
                                    one session at a time, whose buffers its programs work on
    verify                          "size" leaves out the hashes of the files

    Raises:
        ArtifactError: the artifact is missing, damaged or newer than this lcc.
        CacheError, ConfigError: sizes that this artifact cannot have.
        ConfigError: the engine serves another session, which is still there.
        TargetError: the engine is not installed, or its device not there.
    """
    begin = time.perf_counter()
    whole = read_manifest(folder)
    manifest = for_target(whole, target or whole.target)
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, wanted 1 or more")
    if engine is not None and id(engine) in _served:
        raise ConfigError(
            f"engine is that of {_served[id(engine)]!r}, wanted one of its own; open another "
            "engine, or let go of that session first"
        )
    verify_files(folder, whole, level=verify)
    if engine is None:
        manifest, engine = _choose(folder, whole, target, threads, device)
    cache = _lowered(manifest, capacity=capacity, budget=budget, chunk_size=chunk_size)
    tokenizer = Tokenizer(folder, manifest.files)
    session = _served[id(engine)] = Session(manifest, cache, tokenizer, engine)
    trim()
    page_out(folder)  # weights that were read to be packed, 17 MB of `int4` (docs/speed.md)
    session.loaded_in(time.perf_counter() - begin)
    return session


def _choose(
    folder: str | Path, manifest: Manifest, target: str | None, threads: int | None, device: Any
) -> tuple[Manifest, Engine]:
    """The first target that can run here, or the one asked for."""
    errors = []
    for name in targets_of(manifest) if target is None else [target]:
        chosen = for_target(manifest, name)
        try:
            return chosen, _engine(folder, chosen, threads, device)
        except TargetError as error:
            errors.append(error)
    raise errors[0]


def _engine(folder: str | Path, manifest: Manifest, threads: int | None, device: Any) -> Engine:
    """What runs the programs of a manifest's target."""
    if manifest.target == "reference":
        raise TargetError(
            f"{folder} is for target reference, which is PyTorch and no part of the runtime; give "
            "engine=lcc.targets.reference.open_engine(folder, manifest), or use `lcc run`"
        )
    if manifest.target.startswith("tvm"):
        from lcc.runtime.engines.tvm_relax import TvmEngine

        return TvmEngine(folder, manifest, threads=threads)
    from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(folder, manifest, threads=threads, device=device)


def _lowered(manifest: Manifest, **sizes: int | None) -> CacheConfig:
    """The compiled sizes with some of them lowered, none of which the target has fixed."""
    lowered, compiled = manifest.cache.lowered(**sizes), manifest.cache
    for name in _fixed(manifest) if lowered != compiled else ():
        size, most = getattr(lowered, name), getattr(compiled, name)
        if size < most:
            raise CacheError(
                f"{name} is {size}, and {manifest.target} has it fixed at {most}; compile anew"
            )
    return lowered


def _fixed(manifest: Manifest) -> set[str]:
    """Sizes that the programs have as numbers, not as names."""
    full = next((i for i, e in enumerate(manifest.model.layers) if e.slots is None), 0)
    places = {
        f"key_{full}": ("capacity", 2),
        "tokens": ("chunk_size", 1),
        "new_slots": ("budget", 0),
    }
    fixed = set()
    for program in manifest.programs.values():
        for tensor in program.inputs:
            name, axis = places.get(tensor.name, ("", 0))
            if name and isinstance(tensor.shape[axis], int) and tensor.shape[axis] != 1:
                fixed.add(name)
    return fixed
