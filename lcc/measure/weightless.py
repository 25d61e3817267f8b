"""One call of a program without weights, on random entries: an engine against the reference."""

from collections.abc import Mapping

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.artifact.schedule import TensorSpec
from lcc.ir.roles import Role
from lcc.measure.comparison import TOLERANCE, Row, compared
from lcc.runtime.engines.base import Engine
from lcc.runtime.engines.host_array import zeros

QUERIES = 16  # of a call of `score`


def weightless(program: str, engine: Engine, reference: Engine, manifest: Manifest) -> list[Row]:
    """Compare all outputs of one program.

    engine, reference   that run the same program; the cache may be kept in other types
    """
    sizes = {
        "slots": manifest.constants["capacity"],
        "budget": manifest.constants["budget"],
        "rows": QUERIES,
    }
    feeds = _random(reference.program(program).inputs, sizes, manifest)
    results = [_run(each, program, feeds, sizes) for each in (engine, reference)]
    errors: dict[str, list[float]] = {}
    for spec in engine.program(program).outputs:
        got, wanted = (result[spec.name].astype(np.float64) for result in results)
        rounded = spec.role in (Role.KEY, Role.VALUE)
        kind = f"{program}, entries" if rounded else program
        errors.setdefault(kind, []).append(np.abs(got - wanted).max())
    # Slots and scores are computed in float32, whatever the cache is kept in.
    kept_in = next(each.dtype for each in manifest.buffers if each.role == Role.KEY)
    limits = {program: TOLERANCE["float32"], f"{program}, entries": TOLERANCE[kept_in]}
    return [  # np.max, for max() would drop a NaN
        compared(kind, "reference", float(np.max(each)), limits[kind])
        for kind, each in errors.items()
    ]


def _run(
    engine: Engine, program: str, feeds: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The outputs of one call, in arrays of their own."""
    entry = engine.program(program)
    given = {}
    for spec in entry.inputs:
        given[spec.name] = zeros(feeds[spec.name].shape, spec.dtype)
        given[spec.name][...] = feeds[spec.name]
    results = {spec.name: zeros(_shape(spec, sizes), spec.dtype) for spec in entry.outputs}
    engine.runner(program)({**given, **results})
    return results


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    return [sizes[size] if isinstance(size, str) else size for size in spec.shape]


def _random(
    inputs: list[TensorSpec], sizes: Mapping[str, int], manifest: Manifest
) -> dict[str, np.ndarray]:
    """An array for every input, of what its role says."""
    draw, constants = np.random.default_rng(0), manifest.constants
    held = next((spec.shape[-1] for spec in inputs if spec.role == Role.TOKEN_POSITION), "slots")
    slots = sizes["slots"] if isinstance(held, str) else held
    used = max(constants["budget"] + 1, slots - 5) if isinstance(held, str) else slots - 5
    counters = {
        "used": used,
        "kept": used // 2,
        "tokens_read": 3 * used,
        "left": -1,
        "start": max(0, slots - QUERIES),
        "known": slots // 2,
    }
    feeds = {}
    for spec in inputs:
        shape = _shape(spec, sizes)
        if spec.role == Role.COUNTER:
            feeds[spec.name] = np.array([counters.get(spec.name, 0)])
        elif spec.role == Role.SLOTS:
            feeds[spec.name] = np.arange(shape[0])
        elif spec.role == Role.TOKENS:
            feeds[spec.name] = draw.integers(manifest.model.vocab_size, size=shape)
        elif spec.role == Role.TOKEN_POSITION:
            rows = [np.sort(draw.permutation(2 * used)[: shape[1]]) for _ in range(shape[0])]
            feeds[spec.name] = np.stack([np.resize(row, shape[1]) for row in rows])
        elif spec.role == Role.KEPT:
            stays = [np.sort(draw.permutation(shape[1])[: shape[1] // 2]) for _ in range(shape[0])]
            rest = np.arange(shape[1] // 2, shape[1])
            feeds[spec.name] = np.stack([np.concatenate((each, rest)) for each in stays])
        elif spec.role in (Role.KEY, Role.VALUE, Role.QUERIES):
            feeds[spec.name] = draw.standard_normal(shape, np.float32)
        else:
            feeds[spec.name] = draw.random(shape, np.float32)
    return feeds
