"""What each layer loses when it sees less, and the plan of a wanted size that loses least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lcc.capture import capture
from lcc.config import CacheConfig
from lcc.errors import ConfigError
from lcc.models import LoadedModel
from lcc.passes.find_attention import FindAttention
from lcc.plan import Full, SinkWindow, show_plan
from lcc.plan_meter import Loss, Meter, Plan

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Row:
    """A plan that was measured.

    full            layers that see everything
    kv_bytes        of keys and values, float32
    divergence      see `Loss`
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
    kind: SinkWindow,
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
    report("capture", 0.0)
    meter = Meter(FindAttention(table_size=1)(capture(loaded.module)).graph, texts, kind.window)
    layers = sum(not window for window in meter.windows)
    if full is None:
        full = layers // 3 if kv_limit is None else most_full(meter, kind, cache, kv_limit)
    if not 0 <= full < layers:
        raise ConfigError(
            f"full layers: {full}, wanted 0 to {layers - 1}: where all {layers} stay full "
            "there is nothing to find"
        )

    def row(plan: Plan, loss: Loss) -> Row:
        count = sum(isinstance(each, Full) for each in plan) - (len(plan) - layers)
        size = kv_bytes(meter, plan, cache)
        return Row(show_plan(plan), count, size, loss.divergence, math.exp(loss.surprise))

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
    shown = tuple(
        None if window else loss for loss, window in zip(alone, meter.windows, strict=True)
    )
    return Found(str(kind), shown, tuple(steps), measured)


def _pieces(
    loaded: LoadedModel, text: str, kind: SinkWindow, length: int, pieces: int
) -> list[list[int]]:
    if "tokenizer.json" not in loaded.files:
        raise ConfigError(f"{loaded.name} has no tokenizer.json, and the text must become tokens")
    from tokenizers import Tokenizer

    if kind.sink + kind.window + 2 > length:
        raise ConfigError(
            f"{kind} sees all of a piece of {length} tokens; wanted longer pieces or a smaller "
            "window"
        )
    if loaded.trained_window is not None and length > loaded.trained_window:
        raise ConfigError(
            f"length is {length}, {loaded.name} was trained to read {loaded.trained_window} tokens"
        )
    tokenizer = Tokenizer.from_str(loaded.files["tokenizer.json"].decode())
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) < length * pieces:
        raise ConfigError(
            f"the text has {len(ids)} tokens, {pieces} pieces of {length} are {length * pieces}; "
            "wanted a longer text, or fewer or shorter pieces"
        )
    apart = (len(ids) - length) // max(1, pieces - 1)
    return [ids[i * apart : i * apart + length] for i in range(pieces)]


def each_layer(meter: Meter, kind: SinkWindow, progress: Progress) -> list[float]:
    """Of every layer, the divergence when it alone is of this kind; those with a window: 0."""
    losses = []
    meter.base(meter.dense)
    for i, window in enumerate(meter.windows):
        progress(f"layer {i} alone", i / len(meter.windows))
        plan = _with(meter.dense, i, kind)
        losses.append(0.0 if window else meter.loss(plan, i).divergence)
    return losses


def greedy(
    meter: Meter,
    kind: SinkWindow,
    alone: list[float],
    full: int,
    progress: Progress,
) -> Iterator[tuple[Plan, Loss]]:
    """Plans with fewer and fewer full layers, down to `full`: each time the layer that costs least.

    alone       what `each_layer` found

    A layer's cost of last time stands in for its cost now until it is the smallest: then it is
    measured again, and taken if it still is (costs grow as layers are taken, nearly always).
    """
    plan, costs = meter.dense, {i: cost for i, cost in enumerate(alone) if not meter.windows[i]}
    wanted = len(costs) - full
    for taken in range(wanted):
        progress(f"{taken} layers sparse", taken / wanted)
        meter.base(plan)
        fresh: dict[int, Loss] = {}
        while (best := min(costs, key=lambda i: (costs[i], i))) not in fresh:
            fresh[best] = meter.loss(_with(plan, best, kind), best)
            costs[best] = fresh[best].divergence
        plan = _with(plan, best, kind)
        del costs[best]
        yield plan, fresh[best]


def placements(meter: Meter, kind: SinkWindow, full: int) -> dict[str, Plan]:
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


def kv_bytes(meter: Meter, plan: Plan, cache: CacheConfig) -> int:
    """Bytes of keys and values in float32, of a model compiled with this plan and cache."""
    return sum(
        8 * heads * size * (cache.capacity if isinstance(kind, Full) else slots_of(kind, cache))
        for kind, (heads, size) in zip(plan, meter.sizes, strict=True)
    )


def most_full(meter: Meter, kind: SinkWindow, cache: CacheConfig, limit: int) -> int:
    """How many layers may stay full within so many bytes of keys and values.

    Raises ConfigError where not even a plan without a full layer fits.
    """
    layers = [i for i, window in enumerate(meter.windows) if not window]
    for full in range(len(layers), -1, -1):
        plan = tuple(kind if i in layers[full:] else Full() for i in range(len(meter.windows)))
        if (least := kv_bytes(meter, plan, cache)) <= limit:
            return full
    raise ConfigError(
        f"{limit:,} bytes of keys and values: without a full layer there are {least:,}; wanted a "
        "smaller window or capacity, or more bytes"
    )


def slots_of(kind: SinkWindow, cache: CacheConfig) -> int:
    """Entries that a layer of this kind has room for."""
    return kind.slots(max(cache.chunk_size, cache.catalyst_size))


def _with(plan: Plan, layer: int, kind: SinkWindow) -> Plan:
    return (*plan[:layer], kind, *plan[layer + 1 :])
