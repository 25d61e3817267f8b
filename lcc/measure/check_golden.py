"""Hold an artifact against its `golden.json`: without the model it was made from, without PyTorch.

What is compared, and what `max_error` is then:
    cycles                  how many more or fewer there are
    cycle 0, counters       how many differ
    cycle 0, kept           largest share of a layer's kept positions that it does not hold
    logits, 117 tokens      largest absolute difference
    next tokens             how many differ, where the golden is exact
"""

import sys
from collections import Counter
from collections.abc import Iterator
from math import isnan
from pathlib import Path

import msgspec
import numpy as np

from lcc.artifact.golden import CycleRecord, Golden, LogitsRecord, read_golden, transcript
from lcc.artifact.manifest import Manifest
from lcc.errors import ArtifactError
from lcc.measure.comparison import Report, Row, compared
from lcc.runtime.core.executor import Executor
from lcc.runtime.model import Model


def check_golden(model: Model, folder: str | Path) -> Report:
    """Read what `golden.json` says with this runtime, and compare every number.

    Args:
        model: From `lcc.runtime.load(folder)`.
        folder: The artifact.

    Raises:
        ArtifactError: the artifact has no golden, or one that does not fit it.
        CacheError: the golden has sizes that the artifact does not allow.
    """
    golden, manifest = read_golden(folder), model.manifest
    _check_ids(golden, manifest, Path(folder))
    sizes = manifest.cache.lowered(**msgspec.structs.asdict(golden.sizes))
    executor = Executor(manifest, sizes, model.engine)
    layers = sorted({layer for cycle in golden.cycles for layer in cycle.kept})
    seen = transcript(executor, manifest, golden.ids, layers=layers, follow=golden.next)
    rows = [_row("cycles", len(seen.cycles) - len(golden.cycles), 0)]
    for place, (wanted, got) in enumerate(zip(golden.cycles, seen.cycles, strict=False)):
        rows += _cycle_rows(f"cycle {place}", golden, wanted, got)
    for record, (tokens, logits) in zip(golden.logits, seen.logits, strict=True):
        if tokens != record.tokens:
            rows.append(_row(f"tokens read, {record.tokens}", tokens - record.tokens, 0))
        error = _logits_error(record, logits)
        rows.append(_row(f"logits, {record.tokens} tokens", error, golden.tolerance.logits))
    if golden.exact:
        wrong = sum(a != b for a, b in zip(golden.next, seen.chosen, strict=True))
        rows.append(_row("next tokens", wrong, 0))
    return Report(tuple(rows), exact=golden.exact)


def _row(what: str, error: float, tolerance: float) -> Row:
    return compared(what, "golden.json", abs(error), tolerance)


def _cycle_rows(what: str, golden: Golden, wanted: CycleRecord, got: CycleRecord) -> Iterator[Row]:
    counters = {**wanted.counters, "tokens": wanted.tokens}
    found = {**got.counters, "tokens": got.tokens}
    wrong = [name for name, value in counters.items() if found.get(name) != value]
    yield _row(f"{what}, {', '.join(wrong) or 'counters'}", len(wrong), 0)
    shares = [_lost(heads, got.kept[layer]) for layer, heads in wanted.kept.items()]
    yield _row(f"{what}, kept", max(shares, default=0.0), golden.tolerance.kept)


def _lost(wanted: tuple[tuple[int, ...], ...], got: tuple[tuple[int, ...], ...]) -> float:
    """Share of a layer's positions that the layer does not hold; 1.0 where it has other heads."""
    if len(wanted) != len(got):
        return 1.0
    missing = [
        (Counter(head) - Counter(held)).total() for head, held in zip(wanted, got, strict=True)
    ]
    return sum(missing) / max(1, sum(map(len, wanted)))


def _logits_error(record: LogitsRecord, logits: np.ndarray) -> float:
    """Largest difference; what is not a number differs by as much as can be."""
    errors = [abs(float(logits[token]) - value) for token, value in record.top]
    return max((sys.float_info.max if isnan(error) else error for error in errors), default=0.0)


def _check_ids(golden: Golden, manifest: Manifest, folder: Path) -> None:
    """Refuse ids and layers that the model does not have."""
    size, layers = manifest.model.vocab_size, len(manifest.model.layers)
    ids = {*golden.ids, *golden.next, *(i for each in golden.logits for i, _ in each.top)}
    if wrong := sorted(i for i in ids if not 0 <= i < size):
        raise ArtifactError(f"{folder}: golden.json has id {wrong[0]}, wanted 0 to {size - 1}")
    for cycle in golden.cycles:
        if wrong := sorted(i for i in cycle.kept if not 0 <= i < layers):
            raise ArtifactError(
                f"{folder}: golden.json has layer {wrong[0]}, wanted 0 to {layers - 1}"
            )
