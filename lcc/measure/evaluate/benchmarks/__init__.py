"""Samples from benchmark files that a user has: which benchmark it is, the fields say.

    for sample in read(Path("longbench/qasper.jsonl")): ...

The wording, the answer's length and the metric are the benchmark's, by dataset. The texts are
whole, because lcc reads any length; `truncate` cuts them in the middle, as the benchmarks do.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from lcc.errors import LccError
from lcc.measure.evaluate.benchmarks import helmet, infinitebench, leval, longbench, longbench2
from lcc.measure.evaluate.benchmarks.truncate import truncate
from lcc.measure.evaluate.sample import Sample

__all__ = ["read", "truncate"]

READERS: tuple[ModuleType, ...] = (longbench, longbench2, infinitebench, leval, helmet)
"""Each has `NAME`; `FIELDS`, the sets of fields that its rows have, one set or another; and
`samples(row, name)`. The first whose fields a row has reads the file."""


def read(path: Path, name: str | None = None) -> Iterator[Sample]:
    """Read a file of LongBench, LongBench v2, InfiniteBench, L-Eval or HELMET.

    Args:
        path: lines of JSON, a list in JSON, or an object whose `data` is one.
        name: dataset, e.g. "passkey", where a row does not say it; None = the file's name.

    Yields:
        samples in the order of the file, `tokens` not counted; none of rows that only a judge
        model can score, or that the benchmark leaves out.

    Raises:
        LccError: no such file, not JSON, fields of no benchmark, an unknown dataset, a row that is
            not as the benchmark has it, or without answers.
    """
    reader, known = None, name or path.stem
    for number, row in enumerate(rows(path), start=1):
        reader = reader or recognise(row, path)
        try:
            yield from reader.samples(row, known)
        except LccError as error:
            raise LccError(f"{path}, row {number}: {error}") from None
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise LccError(
                f"{path}, row {number}: not as {reader.NAME} has it ({type(error).__name__}: "
                f"{error}); wanted {' or '.join(map(listed, reader.FIELDS))}"
            ) from error
    if reader is None:
        raise LccError(f"{path}: no rows")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file, of lines of JSON one at a time."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.read(1)
            file.seek(0)
            lines = (line for line in file if line.strip())
            whole = path.suffix == ".json" or first == "["
            found: Any = json.load(file) if whole else map(json.loads, lines)
            found = found.get("data") if isinstance(found, dict) else found
            for row in found or ():
                if not isinstance(row, dict):
                    raise LccError(f"{path}: a row is {type(row).__name__}, wanted a JSON object")
                yield row
    except OSError as error:
        raise LccError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise LccError(f"{path}: no JSON, nor lines of it: {error}") from None


def recognise(row: dict[str, Any], path: Path) -> ModuleType:
    """The reader whose fields this row has."""
    for reader in READERS:
        if any(fields <= row.keys() for fields in reader.FIELDS):
            return reader
    wanted = "; ".join(
        f"{reader.NAME}: {' or '.join(map(listed, reader.FIELDS))}" for reader in READERS
    )
    raise LccError(f"{path}: a row has {listed(row.keys())}; wanted {wanted}")


def listed(fields: Any) -> str:
    """Names in order, for people."""
    return ", ".join(sorted(fields))
