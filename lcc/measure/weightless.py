"""One call of a program without weights, on random entries: an engine against the reference."""

from collections.abc import Mapping

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.artifact.schedule import TensorSpec
from lcc.ir.roles import Role
from lcc.measure.comparison import TOLERANCE, Row, compared
from lcc.runtime.engines.base import Engine
from lcc.runtime.engines.host_array import zeros

QUERIES = 16  # of a call of `score`, and tokens that leave
ARCHIVED = 64  # rows of an archive that one call takes
TEXTS = 3  # so many times the entries of the cache were read, and are in the archive
UNTURNED = ("archived_key", "archived_value")  # outputs that come from the cache


def weightless(program: str, engine: Engine, reference: Engine, manifest: Manifest) -> list[Row]:
    """Compare all outputs of one program.

    engine, reference   that run the same program; the cache may be kept in other types
    """
    slots, budget = manifest.constants["capacity"], manifest.constants["budget"]
    sizes = {
        "slots": slots,
        "budget": budget,
        "rows": QUERIES,
        "leaving": QUERIES,
        "archive_rows": ARCHIVED,
        "archived": TEXTS * _used(slots, budget),
        "all_tokens": TEXTS * _used(slots, budget),
    }
    feeds = _random(reference.program(program).inputs, sizes, manifest)
    results = [_run(each, program, feeds, sizes) for each in (engine, reference)]
    errors: dict[str, list[float]] = {}
    for spec in engine.program(program).outputs:
        got, wanted = (result[spec.name].astype(np.float64) for result in results)
        rounded = spec.role in (Role.KEY, Role.VALUE) or spec.name in UNTURNED
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
    used = _used(slots, constants["budget"]) if isinstance(held, str) else slots - 5
    counters = {
        "used": used,
        "kept": used // 2,
        "tokens_read": TEXTS * used,
        "left": -1,
        "start": max(0, slots - QUERIES),
        "known": slots // 2,
        "row": ARCHIVED,
        "first": 2,
        "count": constants["budget"] // 2,
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
        elif spec.role == Role.ARCHIVED:
            feeds[spec.name] = _archived(spec.name, shape, draw)
        elif spec.role == Role.KEPT and len(shape) == 1:
            feeds[spec.name] = np.sort(draw.permutation(slots)[: shape[0]])
        elif spec.role == Role.KEPT:
            stays = [np.sort(draw.permutation(shape[1])[: shape[1] // 2]) for _ in range(shape[0])]
            rest = np.arange(shape[1] // 2, shape[1])
            feeds[spec.name] = np.stack([np.concatenate((each, rest)) for each in stays])
        elif spec.role in (Role.KEY, Role.VALUE, Role.QUERIES):
            feeds[spec.name] = draw.standard_normal(shape, np.float32)
        else:
            feeds[spec.name] = draw.random(shape, np.float32)
    return feeds


def _archived(name: str, shape: list[int], draw: np.random.Generator) -> np.ndarray:
    """Rows of an archive of a text, or what a recall has made of them so far."""
    position = np.arange(shape[0])
    if "position" in name:
        return position
    if "sentence" in name:
        return position // 9 * 9.0
    if name == "by_token":
        return np.zeros(shape)
    if "key" in name or "value" in name:
        return draw.standard_normal(shape)
    return draw.random(shape) + (5 if name == "total" else 0)  # so that shares are below 1


def _used(slots: int, budget: int) -> int:
    """Entries held in a full layer: most of its slots, and more than a cycle keeps."""
    return max(budget + 1, slots - 5)
