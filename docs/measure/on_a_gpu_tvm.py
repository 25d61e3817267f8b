"""Libraries of `tvm:cuda`, which no engine of lcc runs, against the reference target's programs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lcc.artifact.manifest import Manifest, ProgramEntry, for_target, read_manifest
from lcc.artifact.weights_index import parse_index, weights_files
from lcc.ir.program import DECODE, PREFILL_CHUNK
from lcc.ir.roles import Role

ALLOWED = 2e-2  # of the largest number, in half precision
EXACT = (Role.KEPT, Role.TOKEN_POSITION, Role.COUNTER)
USED = 7  # entries before a step
RUNS = 20


def device_of(name: str) -> Any:
    """TVM's device; None where this TVM cannot use one."""
    import tvm

    device = tvm.cuda() if name == "cuda" else tvm.cpu()
    return device if device.exist else None


def compare(artifact: Path, device: Any) -> Iterator[dict[str, Any]]:
    """The largest difference of every output of every program, and milliseconds of a call."""
    from lcc.passes import ops  # noqa: F401  (operators that the reference's files name)
    from lcc.targets.reference import open_engine

    manifest = read_manifest(artifact)
    own, exact = for_target(manifest, "tvm:cuda"), for_target(manifest, "reference")
    engine, weights = open_engine(artifact, exact), weights_of(artifact)
    for name, entry in own.programs.items():
        given = inputs_of(name, entry, manifest)
        got, taken = called(artifact / entry.file, given, weights[name], device)
        wanted = {each.name: zeros(each.shape, each.dtype, manifest) for each in entry.outputs}
        wanted |= {k: v.astype("f4") for k, v in wanted.items() if v.dtype == np.float16}
        wide = {k: v.astype("f4") if v.dtype == np.float16 else v for k, v in given.items()}
        names = {each.name for each in exact.programs[name].inputs}
        if "query_rows" in names:  # these libraries hand out all
            wide["query_rows"] = np.arange(given["tokens"].size)
        engine.runner(name)({**wide, **wanted})
        for spec, one in zip(entry.outputs, got, strict=True):
            rows = filled(spec.role, name, given)
            error, most = difference(one, wanted[spec.name], rows)
            allowed = 0 if spec.role in EXACT else ALLOWED * max(1.0, most)
            row = {"program": name, "output": spec.name, "error": error, "allowed": allowed}
            yield row | {"ok": error <= allowed, "ms": taken}


def weights_of(artifact: Path) -> dict[str, list[np.ndarray]]:
    """The tensors that every program takes behind its inputs."""
    file, index = (artifact / each for each in weights_files("tvm:cuda"))
    data = np.fromfile(file, np.uint8)

    def tensor(stored: Any) -> np.ndarray:
        size = int(np.prod(stored.shape)) * np.dtype(stored.dtype).itemsize
        part = data[stored.offset : stored.offset + size]
        return part.view(stored.dtype).reshape(stored.shape)

    found = parse_index(index.read_bytes(), index)
    return {name: [tensor(each) for each in stored] for name, stored in found.items()}


def called(
    library: Path, given: dict[str, np.ndarray], weights: list[np.ndarray], device: Any
) -> tuple[list[np.ndarray], float]:
    """The outputs of a library's program, and milliseconds of a call, the median of `RUNS`."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), device)
    arrays = [tvm.runtime.tensor(each, device) for each in [*given.values(), *weights]]
    results, times = machine["main"](*arrays), []
    for _ in range(RUNS):
        begin = time.perf_counter()
        machine["main"](*arrays)
        device.sync()
        times.append(1e3 * (time.perf_counter() - begin))
    return [each.numpy() for each in results], round(float(np.median(times)), 3)


def zeros(shape: Any, dtype: str, manifest: Manifest) -> np.ndarray:
    """An array; sizes that are left to the call are those of a chunk, and of a whole cache."""
    cache = manifest.cache
    sizes = {"rows": cache.chunk_size, "slots": cache.capacity, "budget": cache.budget}
    return np.zeros([sizes[each] if isinstance(each, str) else each for each in shape], dtype)


def inputs_of(name: str, entry: ProgramEntry, manifest: Manifest) -> dict[str, np.ndarray]:
    """Inputs that make sense: a step behind a few entries, a cycle over a cache nearly full."""
    draw, cache = np.random.default_rng(3), manifest.cache
    used, kept = cache.capacity * 3 // 4, cache.budget - 4
    counters = {"used": used, "kept": kept, "known": kept, "start": used - 10}
    counters |= {"tokens_read": 5 * used, "left": -1}
    if name in (PREFILL_CHUNK, DECODE):
        counters = {"used": USED}
    given = {}
    for spec in entry.inputs:
        array = zeros(spec.shape, spec.dtype, manifest)
        if array.dtype.kind == "f":
            array[...] = draw.standard_normal(array.shape)
        elif spec.role == Role.TOKENS:
            array[...] = draw.integers(5, manifest.model.vocab_size, array.shape)
        elif spec.role == Role.COUNTER:
            array[...] = counters.get(spec.name, 0)
        elif spec.role in (Role.TOKEN_POSITION, Role.KEPT):
            array[...] = np.sort([draw.permutation(array.shape[1]) for _ in array], 1)
        else:
            array[...] = np.arange(array.size).reshape(array.shape)
        given[spec.name] = array
    return given


def filled(role: Role, name: str, given: dict[str, np.ndarray]) -> tuple[slice, ...]:
    """The part of an output that has a meaning: entries, not the slots behind them."""
    rows = slice(USED + given["tokens"].size) if "tokens" in given else slice(None)
    if "kept" in given and given["kept"].size == 1:
        rows = slice(int(given["kept"][0]))
    if role in (Role.KEY, Role.VALUE):
        return slice(None), slice(None), rows
    return (slice(None), rows) if role == Role.TOKEN_POSITION else ()


def difference(one: np.ndarray, other: np.ndarray, part: tuple) -> tuple[float, float]:
    """The largest difference, infinite where a number is none, and the largest number wanted."""
    a, b = one[part].astype("f8"), other[part].astype("f8")
    error = np.abs(a - b).max()
    return float(error if np.isfinite(error) else np.finfo("f8").max), float(np.abs(b).max())
