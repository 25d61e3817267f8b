"""What a child process measures, by one clock for everyone, and the record of it."""

import time
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from lcc.errors import LccError
from lcc.runtime.stats import peak_rss_bytes

WARM_UP = 256  # tokens read before the clock starts
FIRST_IDS = 8  # of what was written, kept to compare

OnToken = Callable[[int], object]


class Request(Struct, frozen=True, kw_only=True):
    """What a child process is told.

    kind            the file in lcc/measure/bench/engines/
    source          what its `load` reads: an artifact, or what its `prepare` made
    precision       of a peer's weights: fp32 or int4; an artifact has its own
    ids             the prompt
    new_tokens      written after it, 2 or more
    threads         that the engine may use
    options         of an artifact: budget, capacity, target; of a press: budget
    """

    kind: str
    source: str
    precision: str
    ids: list[int]
    new_tokens: int
    threads: int
    options: dict[str, Any] = {}


class Measurement(Struct, frozen=True, kw_only=True):
    """One line: an engine, a length, a round. Where it failed, `error` and no numbers.

    tokens                      of the prompt
    round                       from 1
    load_seconds                until the model could be asked; part of no other time
    first_token_seconds         from the prompt to its first token, by greedy choice
    prefill_tokens_per_second   tokens / first_token_seconds
    decode_tokens_per_second    of the tokens after the first
    peak_rss_bytes              the most the whole process ever took; None = the system is silent
    kv_bytes                    allocated for keys and values; None = the engine does not say
    cycles                      evictions, in reading and writing
    cores_used                  processor time / time, while it read and wrote
    first_ids                   the first tokens it wrote
    """

    engine: str
    tokens: int
    round: int
    load_seconds: float | None = None
    first_token_seconds: float | None = None
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    peak_rss_bytes: int | None = None
    kv_bytes: int | None = None
    cycles: int | None = None
    cores_used: float | None = None
    first_ids: list[int] = []
    error: str | None = None


class Model(Protocol):
    """What `load` of an engine gives."""

    def generate(self, ids: list[int], count: int, on_token: OnToken) -> None:
        """Forget all, read ids, write `count` greedy tokens whatever they are; tell each."""

    def facts(self) -> dict[str, Any]:
        """`kv_bytes` and `cycles` of the last `generate`, where they are known."""


def measure(request: Request, load: Callable[[Request], Model]) -> dict[str, Any]:
    """Load, warm up, read, write; returns the numbers of a `Measurement` by name."""
    begin = time.perf_counter()
    model = load(request)
    loaded = time.perf_counter() - begin
    # Backwards: an engine that remembers prompts must not know the beginning of this one.
    model.generate(request.ids[:WARM_UP][::-1], 2, lambda token: None)

    times, chosen = list[float](), list[int]()

    def on_token(token: int) -> None:
        times.append(time.perf_counter())
        chosen.append(token)

    cpu, begin = time.process_time(), time.perf_counter()
    model.generate(request.ids, request.new_tokens, on_token)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    if len(chosen) != request.new_tokens:
        raise LccError(f"wrote {len(chosen)} tokens, wanted {request.new_tokens}")
    first = times[0] - begin
    return {
        "load_seconds": loaded,
        "first_token_seconds": first,
        "prefill_tokens_per_second": len(request.ids) / first,
        "decode_tokens_per_second": (len(times) - 1) / (times[-1] - times[0]),
        "peak_rss_bytes": peak_rss_bytes(),
        "cores_used": cpu / wall,
        "first_ids": chosen[:FIRST_IDS],
    } | model.facts()
