"""What each layer loses when it sees less, and the plan of a wanted size that loses least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lcc.capture.export import capture
from lcc.config import CacheConfig
from lcc.errors import ConfigError
from lcc.ir.plan import Full, Sparse, show_plan
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.search.plan_meter import Loss, Meter, Plan, Site, sites
from lcc.sources.models import LoadedModel, encoder

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Row:
    """A plan that was measured.

    plan            as `parse_plan` reads it
    full            layers that see everything; those with a window of the model's own do not count
    kv_bytes        of keys and values, float32
    divergence      nats a token, see `Loss`
    perplexity      of the texts
    """

    plan: str
    full: int
    kv_bytes: int
    divergence: float
    perplexity: float


@dataclass(frozen=True)
class Found:
    """What `find_plan` measured.

    alone       divergence of every layer when it alone is sparse; None = it has a window already
    steps       the greedy plans, from one sparse layer to as many as were wanted
    others      plans with as many full layers, by name; "dense" is the model as it is
    """

    kind: str
    alone: tuple[float | None, ...]
    steps: tuple[Row, ...]
    others: dict[str, Row]

    @property
    def best(self) -> Row:
        """The plan proposed: of all with the wanted number of full layers, the nearest one."""
        same = [row for name, row in self.others.items() if name != "dense"]
        return min([*self.steps[-1:], *same], key=lambda row: row.divergence)


def find_plan(
    loaded: LoadedModel,
    text: str,
    kind: Sparse,
    *,
    full: int | None = None,
    kv_limit: int | None = None,
    cache: CacheConfig | None = None,
    length: int = 2048,
    pieces: int = 4,
    progress: Progress | None = None,
) -> Found:
    """Measure, without training, which layers of a model may become sparse.

    text        read in `pieces` pieces of `length` tokens, spread evenly over it
    kind        what the layers see that are not full
    full        layers that stay full; None = as many as `kv_limit` bytes allow, or a third
    cache       sizes, of which keys and values are counted

    Raises:
        ConfigError: a text too short, a window that sees all of a piece, a size nothing fits in.
    """
    report = progress or (lambda *_: None)
    cache = cache or CacheConfig()
    texts = _pieces(loaded, text, kind, length, pieces)
    if (slots := slots_of(kind, cache)) >= cache.capacity:
        raise ConfigError(
            f"{kind} takes {slots} slots a layer (with a chunk of {cache.chunk_size}), a full "
            f"layer {cache.capacity}: nothing would be saved; wanted a smaller window, or more "
            "--capacity"
        )
    report("capture", 0.0)
    graph = FindAttention(table_size=1)(capture(loaded.module)).graph
    full = _how_many_full(graph, kind, cache, full, kv_limit)
    report("read the text", 0.0)
    meter = Meter(graph, texts, kind.dense_length)
    layers = sum(not window for window in meter.windows)

    def row(plan: Plan, loss: Loss) -> Row:
        count = sum(isinstance(each, Full) for each in plan) - (len(plan) - layers)
        size = kv_bytes(sites(graph), plan, cache)
        return Row(show_plan(plan), count, size, loss.divergence, math.exp(loss.nll))

    alone = each_layer(meter, kind, lambda what, share: report(what, 0.4 * share))
    steps = [
        row(plan, loss)
        for plan, loss in greedy(
            meter, kind, alone, full, lambda what, share: report(what, 0.4 + 0.5 * share)
        )
    ]
    others = {"dense": meter.dense} | placements(meter, kind, full)
    measured = {}
    for place, (name, plan) in enumerate(others.items()):
        report(name, 0.9 + 0.1 * place / len(others))
        measured[name] = row(plan, meter.loss(plan))
    report("done", 1.0)
    of_each = tuple(alone[i].divergence if i in alone else None for i in range(len(meter.windows)))
    return Found(str(kind), of_each, tuple(steps), measured)


def _how_many_full(
    graph: ModelGraph, kind: Sparse, cache: CacheConfig, full: int | None, limit: int | None
) -> int:
    """As many as were wanted, as fit, or a third; refused where there is nothing to find."""
    layers = sum(not site.window for site in sites(graph))
    if layers == 0:
        raise ConfigError("every layer has a window of the model's own, which it keeps")
    if limit is not None:
        full = most_full(sites(graph), kind, cache, limit)
        if full == layers:
            raise ConfigError(f"all {layers} layers fit as they are; wanted fewer bytes in --kv")
    full = layers // 3 if full is None else full
    if not 0 <= full < layers:
        raise ConfigError(f"layers that stay full: {full}, wanted 0 to {layers - 1}")
    return full


def _pieces(
    loaded: LoadedModel, text: str, kind: Sparse, length: int, pieces: int
) -> list[list[int]]:
    if pieces < 1:
        raise ConfigError(f"pieces is {pieces}, wanted 1 or more")
    if all(kind.sees(length - 2, key, 0) for key in range(length - 1)):
        raise ConfigError(
            f"{kind} sees all of a piece of {length} tokens; wanted longer pieces or a smaller "
            "window"
        )
    if loaded.trained_window is not None and length > loaded.trained_window:
        raise ConfigError(
            f"length is {length}, {loaded.name} was trained to read {loaded.trained_window} "
            "tokens; lower --length"
        )
    ids = encoder(loaded)(text)
    if len(ids) < length * pieces:
        raise ConfigError(
            f"the text has {len(ids)} tokens, {pieces} pieces of {length} are {length * pieces}; "
            "wanted a longer text, or fewer or shorter pieces"
        )
    apart = (len(ids) - length) // max(1, pieces - 1)
    return [ids[i * apart : i * apart + length] for i in range(pieces)]


def each_layer(meter: Meter, kind: Sparse, progress: Progress) -> dict[int, Loss]:
    """Of every layer without a window of its own, the loss when it alone is of this kind.

    The meter has just read its texts, with every layer as it is.
    """
    losses = {}
    layers = [i for i, window in enumerate(meter.windows) if not window]
    for place, i in enumerate(layers):
        progress(f"layer {i} alone", place / len(layers))
        losses[i] = meter.loss(_with(meter.dense, i, kind), i)
    return losses


def greedy(
    meter: Meter, kind: Sparse, alone: dict[int, Loss], full: int, progress: Progress
) -> Iterator[tuple[Plan, Loss]]:
    """Plans with fewer and fewer full layers, down to `full`: each time the layer that costs least.

    alone       what `each_layer` found

    A layer's cost of last time stands in for its cost now until it is the smallest: then it is
    measured again, and taken if it still is (costs grow as layers are taken, nearly always).
    """
    plan, fresh = meter.dense, dict(alone)
    costs = {i: loss.divergence for i, loss in alone.items()}
    wanted = len(costs) - full
    for taken in range(wanted):
        progress(f"{taken} layers sparse", taken / wanted)
        if taken:
            meter.base(plan)
            fresh = {}
        while (best := min(costs, key=lambda i: (costs[i], i))) not in fresh:
            fresh[best] = meter.loss(_with(plan, best, kind), best)
            costs[best] = fresh[best].divergence
        plan = _with(plan, best, kind)
        del costs[best]
        yield plan, fresh[best]


def placements(meter: Meter, kind: Sparse, full: int) -> dict[str, Plan]:
    """Plans with as many full layers, placed by rule: what a found plan has to beat.

    Layers with a window of the model's own keep it and count as neither.
    """
    layers = [i for i, window in enumerate(meter.windows) if not window]
    n, outer = len(layers), len(layers) - full
    spread = {layers[(2 * j + 1) * n // (2 * full)] for j in range(full)}
    chosen = {
        "longgen, the middle full": set(layers[outer // 2 : outer // 2 + full]),
        "the first full": set(layers[:full]),
        "the last full": set(layers[n - full :]),
        "interleaved": spread,
    }
    return {
        name: tuple(
            Full() if i in full_ones or window else kind for i, window in enumerate(meter.windows)
        )
        for name, full_ones in chosen.items()
    }


def kv_bytes(layers: list[Site], plan: Plan, cache: CacheConfig) -> int:
    """Bytes of keys and values in float32, of a model compiled with this plan and cache."""
    return sum(
        8 * layer.numbers * (cache.capacity if isinstance(kind, Full) else slots_of(kind, cache))
        for kind, layer in zip(plan, layers, strict=True)
    )


def most_full(layers: list[Site], kind: Sparse, cache: CacheConfig, limit: int) -> int:
    """How many layers may stay full within so many bytes of keys and values, whichever they are.

    Raises ConfigError where not even a plan without a full layer fits.
    """
    own = [i for i, layer in enumerate(layers) if not layer.window]
    largest = sorted(own, key=lambda i: -layers[i].numbers)
    for full in range(len(own), -1, -1):
        sparse = set(largest[full:])
        plan = tuple(kind if i in sparse else Full() for i in range(len(layers)))
        if (least := kv_bytes(layers, plan, cache)) <= limit:
            return full
    raise ConfigError(
        f"--kv {limit:,} bytes: without a full layer keys and values take {least:,}; wanted "
        "more, or a smaller window"
    )


def slots_of(kind: Sparse, cache: CacheConfig) -> int:
    """Entries that a layer of this kind has room for."""
    return kind.slots(cache.chunk_size, cache.catalyst_size)


def _with(plan: Plan, layer: int, kind: Sparse) -> Plan:
    return (*plan[:layer], kind, *plan[layer + 1 :])
