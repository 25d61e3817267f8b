"""What a session holds, in a file: the rows in use of every buffer that the manifest marks.

A safetensors file; its `__metadata__` has two texts:

    sha256  of the header, with 64 zeros in this place, and of the data
    lcc     a JSON page: version, artifact (its fingerprint), counters, sizes, beginning (the first
            ids of the text), notes: what the caller wants to find again, and archive: rows that
            it knows, and a checksum of the last (null = there was none)

A state belongs to the artifact it was made with, file by file: other weights read other keys.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lcc.artifact.check_counters import check_counters
from lcc.artifact.manifest import CACHE_DTYPES, fingerprint
from lcc.artifact.replace import write_pieces
from lcc.artifact.schedule import BufferSpec
from lcc.config import BEGINNING_TOKENS, CacheConfig
from lcc.errors import ArtifactError, CacheError, ConfigError, LccError
from lcc.ir.roles import Role
from lcc.runtime.core.executor import Executor
from lcc.runtime.core.plan import check_protected

VERSION = 7
BLANK = b"0" * 64  # in place of the sha256 while it is computed
Table = dict[str, dict[str, Any]]
Placed = tuple[BufferSpec, int, np.ndarray]  # rows, their buffer, and the first of them there


class _Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says of the session; see the top of this module."""

    version: int
    artifact: str
    counters: dict[str, int]
    sizes: CacheConfig
    beginning: list[int]
    notes: msgspec.Raw
    archive: tuple[int, int] | None = None


def save(path: str | Path, executor: Executor, notes: Any, dtype: str | None = None) -> None:
    """Write the state beside `path` and rename it, one buffer at a time.

    notes       a struct, or what JSON can hold
    dtype       of keys and values; None = the cache's own; float16 is half of float32, and rounds
                to 11 bits

    Raises:
        ArtifactError: the folder is not there, or the disk refuses.
        ConfigError: a dtype that is none of the two, or keys too large for float16.
    """
    if dtype not in (None, *CACHE_DTYPES):
        raise ConfigError(f'dtype is "{dtype}", wanted float32 or float16')
    executor.read(())  # what a rewind has left to be read again
    mine, raw = fingerprint(executor.manifest), msgspec.Raw(msgspec.json.encode(notes))
    archive = executor.archive
    mark = None if archive is None else archive.mark(executor.numbers["archived"])
    page = _Page(VERSION, mine, executor.counters, executor.sizes, executor.beginning, raw, mark)
    metadata = {"sha256": BLANK.decode(), "lcc": msgspec.json.encode(page).decode()}
    header = msgspec.json.encode({"__metadata__": metadata} | _table(executor, {}, dtype))
    header, digest = header + b" " * (-len(header) % 8), hashlib.sha256()
    for data in _data(header, executor, dtype):
        digest.update(data)
    header = header.replace(BLANK, digest.hexdigest().encode(), 1)
    try:
        start = len(header).to_bytes(8, "little") + header
        write_pieces(Path(path), _data(start, executor, dtype))
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from None


def _kind(spec: BufferSpec, dtype: str | None) -> str:
    return dtype if dtype and spec.role in (Role.KEY, Role.VALUE) else spec.dtype


def _table(executor: Executor, counters: Mapping[str, int], dtype: str | None) -> Table:
    """Dtype, shape and place of the tensors of a state with these counters, in their order."""
    table, end = Table(), 0
    for spec, _, shape in executor.buffers.saved({**executor.numbers, **counters}):
        kind = np.dtype(_kind(spec, dtype))
        place = [end, end := end + int(np.prod(shape)) * kind.itemsize]
        code = f"{kind.kind.upper()}{8 * kind.itemsize}"  # F32, I64, ...
        table[spec.name] = {"dtype": code, "shape": shape, "data_offsets": place}
    return table


def _data(start: bytes, executor: Executor, dtype: str | None) -> Iterator[bytes]:
    """A header, and the saved rows of each buffer, as they lie in the file."""
    yield start
    for spec, first, shape in executor.buffers.saved(executor.numbers):
        rows = executor.buffers.rows(spec.name, first, first + shape[spec.axis])
        yield _cast(spec.name, rows, _kind(spec, dtype)).tobytes()


def _cast(name: str, rows: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = rows.astype(dtype, copy=False)
    if cast is not rows and not np.isfinite(cast).all():
        raise ConfigError(f"{name} holds numbers too large for {dtype}; keep them in float32")
    return cast


def load(
    path: str | Path,
    executor: Executor,
    kind: Any = Any,
    check: Callable[[Any, Mapping[str, int]], object] = lambda *_: None,
) -> Any:
    """Put a saved state into the executor; returns the notes, which are of this kind.

    check       refuses notes that do not fit the counters, with an LccError

    Everything is checked before anything is written: after an error the executor is as it was.

    Raises:
        ArtifactError: the file is missing, damaged, newer, or of another artifact.
        CacheError: it holds more entries than this session has slots.
        ConfigError: it holds numbers that are too large for a cache in float16.
    """
    try:
        with open(path, "rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), Path(path).stat().st_size)
            table = msgspec.json.decode(header := file.read(length), type=Table)
            metadata, start = table.pop("__metadata__", {}), file.tell()
            page = _page(metadata.get("lcc", "{}"), executor)
            notes = msgspec.json.decode(page.notes, type=kind)
            check(notes, page.counters)
            _check_table(table, [_table(executor, page.counters, each) for each in CACHE_DTYPES])
            digest = hashlib.sha256(header.replace(metadata["sha256"].encode(), BLANK, 1))
            for *_, rows in _tensors(file, table, executor, page):
                digest.update(rows.tobytes())
            if digest.hexdigest() != metadata["sha256"] or file.read(1):
                raise ArtifactError("changed since it was saved (sha256 differs); save it anew")
            file.seek(start)
            archived = _archived(executor, page)
            executor.clear()
            executor.broken = True  # until all is in
            executor.numbers.update(page.counters | archived)
            executor.beginning = page.beginning
            for spec, first, rows in _tensors(file, table, executor, page):
                executor.buffers.write_rows(spec.name, first, rows)
            executor.broken = False
            executor.snapshots.forget()
            executor.begin_turn()
    except LccError as error:
        raise type(error)(f"{path}: {error}") from None
    except (OSError, KeyError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ArtifactError(f"{path}: not a whole state file ({error}); save it anew") from None
    return notes


def _archived(executor: Executor, page: _Page) -> dict[str, int]:
    """Counters of the archive that goes with the state, in this session."""
    if executor.archive is None:
        return {
            name: 0 for name in ("archiving", "archived", "archived_to") if name in page.counters
        }
    if page.archive is None:
        executor.archive.check_new()
        return {"archiving": 1, "archived": 0, "archived_to": 0}
    return {"archiving": 1, "archived": executor.archive.go_back(*page.archive)}


def _tensors(file: Any, table: Table, executor: Executor, page: _Page) -> Iterator[Placed]:
    """The tensors of a file, one after the other, if this session can have them."""
    for spec, first, shape in executor.buffers.saved(executor.numbers | page.counters):
        kind = {"F16": "float16", "F32": "float32"}.get(table[spec.name]["dtype"], spec.dtype)
        rows = np.fromfile(file, kind, int(np.prod(shape))).reshape(shape)
        _cast(spec.name, rows, spec.dtype)
        ids = [*page.beginning, *(rows.tolist() if spec.role == Role.TOKENS else ())]
        if ids and not 0 <= min(ids) <= max(ids) < executor.manifest.model.vocab_size:
            raise ArtifactError(f"{spec.name}: {min(ids)} .. {max(ids)} are no ids of the model")
        yield spec, first, rows


def _page(text: str, executor: Executor) -> _Page:
    """The page, of this version and artifact, with counters that this session can have."""
    if (version := msgspec.json.decode(text, type=dict).get("version")) != VERSION:
        raise ArtifactError(f"version {version}, this lcc reads version {VERSION}")
    page, limits = msgspec.json.decode(text, type=_Page), executor.limits
    if page.artifact != fingerprint(executor.manifest):
        raise ArtifactError("made with another artifact; load it with the one that saved it")
    if (used := page.counters.get("used", 0)) > limits.usable:
        raise CacheError(f"{used} entries, this session has room for {limits.usable}")
    check_counters(executor.manifest, executor.numbers, page.counters)
    if limits.evicts:
        check_protected(page.counters["protected"], executor.sizes.recent_size, limits.budget)
    if len(page.beginning) != min(page.counters["tokens"], BEGINNING_TOKENS):
        raise ArtifactError(f"beginning has {len(page.beginning)} ids; save it anew")
    return page


def _check_table(table: Table, wanted: list[Table]) -> None:
    """The tensors are those that the counters ask for, in one of the dtypes of a cache."""
    if table not in wanted:
        best = max(wanted, key=lambda each: sum(table.get(name) == each[name] for name in each))
        name = next(n for n in sorted({*table, *best}) if table.get(n) != best.get(n))
        raise ArtifactError(f"{name} is {table.get(name)}, wanted {best.get(name)}; save it anew")
