"""The distilled context in a file: what a session holds, and nothing that it does not need.

A safetensors file. Of every layer the first `used` rows, its own number where its kind is not full:

    key_0 ... value_0 ...   [Hkv, used, D]  float32 or float16, whatever the cache is kept in
    token_index_0 ...       [Hkv, used]     int64, of full layers
    attention_0 ...         [Hkv, used]     float32; likewise each scalar the policy reads
    hidden, cycle_hidden    [1, h]          float32, of the last token, and of the last one before
                                            the last cycle (absent where there is none)
    since_cycle             [n]             int64, ids read since the last cycle
    queries_0 ...           [Hq, n, D]      float32, where the policy scores by the newest tokens
    places_1 ...            [H, used]       int64, place in the text of each entry, of each kind of
                                            layer that is not full
    __metadata__            lcc: a JSON page with version, artifact (its fingerprint), used, tokens,
                            windows (used and base of each kind that is not full), protected,
                            pending, cycle_token, beginning, conversation, catalyst (null where
                            the policy reads none); and sha256: of that page and of everything
                            after the header

A state belongs to the artifact it was made with, file by file: other weights read other keys.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from lcc.artifact.manifest import CACHE_DTYPES
from lcc.errors import ArtifactError, CacheError, ConfigError
from lcc.runtime.cycle import check_protected
from lcc.runtime.executor import Executor
from lcc.runtime.text.chat import Conversation

VERSION = 5
DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64"}


class _Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says of the session; see the top of this module."""

    version: int
    artifact: str
    used: int
    tokens: int
    windows: list[tuple[int, int]]
    protected: int
    pending: list[int]
    cycle_token: int | None
    beginning: list[int]
    conversation: Conversation | None
    catalyst: str | list[int] | None


def save(
    path: str | Path,
    executor: Executor,
    *,
    artifact: str,
    pending: list[int],
    conversation: Conversation | None,
    catalyst: str | list[int] | None,
    dtype: Literal["float32", "float16"] | None = None,
) -> None:
    """Write the state beside `path` and rename it; one layer at a time, without a second cache.

    catalyst    what the next cycles look for; None = the policy reads none
    dtype       of keys and values; None = the cache's own; float16 is half of float32, and rounds
                to 11 bits

    Raises:
        ArtifactError: the folder is not there, or the disk refuses.
        ConfigError: a dtype that is none of the two, or keys too large for float16.
    """
    dtype = dtype or executor.cache.dtype  # type: ignore[assignment]  # one of the two
    if dtype not in CACHE_DTYPES:
        raise ConfigError(f'dtype is "{dtype}", wanted float32 or float16')
    path = Path(os.path.abspath(path))
    executor.find_novelty()
    page = msgspec.json.encode(
        _Page(
            version=VERSION,
            artifact=artifact,
            used=executor.used,
            tokens=executor.tokens,
            windows=[(window.used, window.base) for window in executor.windows],
            protected=executor.protected,
            pending=[int(token) for token in pending],
            cycle_token=executor.cycle_token,
            beginning=[int(token) for token in executor.beginning],
            conversation=conversation,
            catalyst=catalyst,
        ),
        order="sorted",
    )
    digest = hashlib.sha256(page)
    for name, array in _arrays(executor):
        digest.update(_cast(name, array, dtype).tobytes())
    metadata = {"lcc": page.decode(), "sha256": digest.hexdigest()}
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, array in _arrays(executor):
        kind = dtype if name.startswith(("key_", "value_")) else str(array.dtype)
        size = array.size * np.dtype(kind).itemsize
        header[name] = {
            "dtype": DTYPES[kind],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with staging.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, array in _arrays(executor):
                file.write(_cast(name, array, dtype).tobytes())
        os.replace(staging, path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)


def _cast(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    if not name.startswith(("key_", "value_")) or array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if not np.isfinite(cast).all():
        raise ConfigError(f'{name} holds numbers too large for float16; save with dtype="float32"')
    return cast


def _arrays(executor: Executor) -> Iterator[tuple[str, np.ndarray]]:
    """Everything that is saved, by name; views of the cache."""
    used, cache = executor.used, executor.cache
    held = _held(executor, used, [window.used for window in executor.windows])
    for i, count in enumerate(held):
        key, value = cache.rows(i, count)
        yield f"key_{i}", key
        yield f"value_{i}", value
    for i in cache.full:
        yield f"token_index_{i}", cache.token_index(i)[:, :used]
        for name in cache.scalar_names:
            yield f"{name}_{i}", cache.scalar(name, i)[:, :used]
    for i in executor.recent.layers:
        yield f"queries_{i}", executor.recent.get(i)
    for window in executor.windows:
        yield f"places_{window.number}", window.places[:, : window.used]
    yield "since_cycle", np.asarray(executor.since_cycle, np.int64)
    for name in ("hidden", "cycle_hidden"):
        if (array := getattr(executor, name)) is not None:
            yield name, array


def _held(executor: Executor, used: int, of_windows: list[int]) -> list[int]:
    """Entries of every layer."""
    held = [used] * len(executor.layers)
    for window, count in zip(executor.windows, of_windows, strict=True):
        for i in window.layers:
            held[i] = count
    return held


def load(
    path: str | Path, executor: Executor, artifact: str
) -> tuple[list[int], Conversation | None, str | list[int] | None]:
    """Put a saved state into the executor; returns pending ids, conversation and catalyst.

    Everything is checked before the first buffer is touched: after an error the executor is as it
    was.

    Raises:
        ArtifactError: the file is missing, damaged, newer, or of another artifact.
        CacheError: it holds more entries than this session has slots.
        ConfigError: it holds numbers that are too large for a cache in float16.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            page = _page(file, path, artifact)
            used = page.used
            if used > executor.limits.usable:
                raise CacheError(
                    f"{path}: {used} entries, this session has room for {executor.limits.usable}; "
                    "load the artifact with a larger capacity"
                )
            if executor.limits.evicts:
                size, budget = executor.config.recent_size, executor.config.budget
                check_protected(page.protected, size, budget)
            slots = [window.slots for window in executor.windows]
            counts = [count for count, _ in page.windows]
            if len(counts) != len(slots) or any(c > s for c, s in zip(counts, slots, strict=True)):
                raise ArtifactError(f"{path}: windows of {counts} entries, wanted at most {slots}")
            _check_tensors(file, path, executor, page)
            _check_digest(file, path)
            executor.reset()
            executor.broken = True  # until all is in
            _fill(file, executor, page)
            executor.broken = False
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: not a whole state file: {error}") from None
    return page.pending, page.conversation, page.catalyst


def _page(file: Any, path: str | Path, artifact: str) -> _Page:
    metadata = file.metadata() or {}
    if "lcc" not in metadata:
        raise ArtifactError(f"{path}: a safetensors file, but no state of a session")
    try:
        version = msgspec.json.decode(metadata["lcc"], type=dict).get("version")
        if version != VERSION:
            raise ArtifactError(f"{path}: version {version}, this lcc reads version {VERSION}")
        page = msgspec.json.decode(metadata["lcc"], type=_Page)
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{path}: damaged: {error}; save it anew") from None
    if page.artifact != artifact:
        raise ArtifactError(
            f"{path}: made with another artifact ({page.artifact[:12]}, this one is "
            f"{artifact[:12]}); load it with the artifact that saved it"
        )
    return page


def _check_digest(file: Any, path: str | Path) -> None:
    """The page and everything after the header are as they were saved; read in pieces."""
    metadata = file.metadata()
    digest = hashlib.sha256(metadata["lcc"].encode())
    with open(path, "rb") as raw:
        raw.seek(8 + int.from_bytes(raw.read(8), "little"))
        while piece := raw.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != metadata.get("sha256"):
        raise ArtifactError(f"{path}: changed since it was saved (sha256 differs); save it anew")


def _check_tensors(file: Any, path: str | Path, executor: Executor, page: _Page) -> None:
    """Every buffer is there, in the shape it will be read in."""
    wanted: dict[str, list[int]] = {}
    held = _held(executor, page.used, [count for count, _ in page.windows])
    for i, (layer, count) in enumerate(zip(executor.layers, held, strict=True)):
        for name in ("key", "value"):
            wanted[f"{name}_{i}"] = [layer.kv_heads, count, layer.head_size]
    for i in executor.cache.full:
        for name in ("token_index", *executor.cache.scalar_names):
            wanted[f"{name}_{i}"] = [executor.layers[i].kv_heads, page.used]
    for window, (count, _) in zip(executor.windows, page.windows, strict=True):
        wanted[f"places_{window.number}"] = [window.heads, count]
    wanted_names = {"since_cycle", *(f"queries_{i}" for i in executor.recent.layers)}
    names = set(file.keys())
    if missing := wanted_names - names:
        raise ArtifactError(f"{path}: no {', '.join(sorted(missing))} in it")
    for name, shape in wanted.items():
        got = list(file.get_slice(name).get_shape()) if name in names else "nothing"
        if got != shape:
            raise ArtifactError(f"{path}: {name} is {got}, wanted {shape}")
        if name.startswith(("key_", "value_")) and executor.cache.dtype == "float16":
            _check_range(name, file.get_tensor(name), path)


def _check_range(name: str, array: np.ndarray, path: str | Path) -> None:
    """Numbers that were saved in float32 are none that float16 cannot hold."""
    largest, most = float(np.abs(array).max(initial=0)), float(np.finfo(np.float16).max)
    if largest > most:
        raise ConfigError(
            f"{path}: {name} holds {largest:.3g}, this session keeps keys and values in float16, "
            f"up to {most:.0f}; load it where they are kept in float32"
        )


def _fill(file: Any, executor: Executor, page: _Page) -> None:
    names, cache, used = set(file.keys()), executor.cache, page.used
    for window, (held, base) in zip(executor.windows, page.windows, strict=True):
        window.used, window.base = held, base
        window.places[:, :held] = file.get_tensor(f"places_{window.number}")
    for i in range(len(executor.layers)):
        cache.fill(i, file.get_tensor(f"key_{i}"), file.get_tensor(f"value_{i}"))
    for i in cache.full:
        cache.token_index(i)[:, :used] = file.get_tensor(f"token_index_{i}")
        for name in cache.scalar_names:
            cache.scalar(name, i)[:, :used] = file.get_tensor(f"{name}_{i}")
    queries = {i: file.get_tensor(f"queries_{i}") for i in executor.recent.layers}
    if queries and next(iter(queries.values())).shape[1] > 0:
        executor.recent.append(queries)
    executor.since_cycle = [int(token) for token in file.get_tensor("since_cycle")]
    executor.novelty.known = len(executor.since_cycle)
    for name in ("hidden", "cycle_hidden"):
        if name in names:
            setattr(executor, name, file.get_tensor(name))
    executor.used, executor.tokens = used, page.tokens
    executor.cycle_token = page.cycle_token
    executor.beginning = page.beginning
    executor.protected = page.protected
