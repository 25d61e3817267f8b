"""Hold an artifact against its model: every program against eager PyTorch, then whole texts."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import nn

import lcc.runtime
from lcc.artifact.manifest import Manifest, ProgramEntry, cache_dtype, read_manifest
from lcc.capture.export import capture, function_of
from lcc.compile import loaded_model, program_entries
from lcc.config import CompileConfig
from lcc.errors import ArtifactError, ConfigError
from lcc.ir.plan import show_plan
from lcc.measure.loss import divergence, perplexity
from lcc.runtime.engines.base import Engine
from lcc.runtime.session import Session
from lcc.runtime.writer import GREEDY
from lcc.sources.heads import RetainingHeads, load_heads
from lcc.sources.models import LoadedModel
from lcc.specialize import Specialized, specialize
from lcc.targets.reference import ReferenceEngine

# Of weights in fewer than 32 bits: nats a token, and share of the perplexity.
MOST_NATS, MOST_PERPLEXITY = 0.05, 0.05
MOST_AFTER_CYCLES = 0.3  # the same, where the cycles may have kept other entries
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}  # absolute, of logits, keys and scores, by cache


class Row(msgspec.Struct, frozen=True):
    """One comparison.

    max_error   largest absolute difference; of tokens and kept entries, how many differ; of a
                perplexity, the share by which it is more; of a divergence, nats a token
    """

    what: str
    against: str
    max_error: float
    tolerance: float
    ok: bool


@dataclass(frozen=True)
class Report:
    """All comparisons of an artifact.

    exact       the same numbers are wanted; else, numbers that lose no more than they may
    """

    rows: tuple[Row, ...]
    exact: bool = True

    @property
    def ok(self) -> bool:
        """Nothing differs by more than it may."""
        return all(row.ok for row in self.rows)


def verify(
    artifact: str | Path,
    source: str | Path | LoadedModel | nn.Module,
    *,
    heads: str | Path | None = None,
    target: str | None = None,
    device: Literal["cpu"] | None = None,
    prompt_tokens: int = 600,
    new_tokens: int = 64,
    progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Compare an artifact with the model it was compiled from.

    artifact        the folder
    source          what it was compiled from, as for `compile_model`
    target, device  see `lcc.runtime.load`
    heads           the file of retaining heads that it was compiled with, if it was
    prompt_tokens   length of the text read where nothing is evicted
    new_tokens      greedy tokens that must be the model's own

    Logits and tokens are compared with the unmodified model; the weightless programs and a text
    long enough for cycles with the reference target. Of weights or a cache in fewer than 32 bits
    neither logits nor what cycles keep can be the same: then it is what they lose in divergence and
    perplexity.

    Raises:
        ArtifactError: the artifact is damaged, or was made from another kind of model.
        ConfigError: it was compiled with retaining heads, and these are not the ones.
    """
    if prompt_tokens < 2:
        raise ConfigError(
            f"prompt_tokens is {prompt_tokens}, wanted a chunk and a token: 2 or more"
        )
    report = progress or (lambda *_: None)
    trained = _heads(read_manifest(artifact), heads)
    session = lcc.runtime.load(artifact, target=target, device=device)
    manifest = session.manifest
    report("load the model", 0.1)
    loaded = loaded_model(source)
    report("specialize", 0.4)
    special = _specialized(manifest, loaded, trained)
    exact = msgspec.structs.replace(manifest, programs=program_entries(special.programs, {}))
    engine = ReferenceEngine(special.programs)
    reference = Session(exact, exact.cache, session.tokenizer, engine)
    ids = _ids(session)
    rows = []
    report("logits", 0.5)
    rows += _logits(session, loaded, ids[: min(prompt_tokens, _usable(session))])
    lossy = not _exact(session)
    report("weightless programs", 0.7)
    for name, entry in manifest.programs.items():
        if name.startswith(("evict", "score", "compact")):
            rows += _weightless(name, entry, session, reference)
    report("greedy tokens", 0.8)
    if not lossy:
        rows += _tokens(session, loaded, ids[: _usable(session) // 2], new_tokens)
    report("cycles", 0.9)
    if session._executor.limits.evicts:
        rows += (_cycles_lost if lossy else _cycles)(session, reference, ids)
    report("done", 1.0)
    return Report(tuple(rows), exact=not lossy)


def _row(what: str, against: str, error: float, tolerance: float) -> Row:
    return Row(what, against, float(error), tolerance, bool(error <= tolerance))


def _tolerance(session: Session) -> float:
    return TOLERANCE[session._executor.cache.dtype]


def _exact(session: Session) -> bool:
    """Whether it should give the very numbers: weights and cache are in float32."""
    return (
        session.manifest.precision == "fp32" and cache_dtype(session.manifest.programs) == "float32"
    )


def _ids(session: Session) -> list[int]:
    """A text that is always the same; random ids where there is no tokenizer."""
    if session.tokenizer.knows_text:
        return session.encode(Path(argparse.__file__).read_text(encoding="utf-8"))
    size = session.manifest.model.vocab_size
    ids: list[int] = np.random.default_rng(0).integers(size, size=20_000).tolist()
    return ids


def _usable(session: Session) -> int:
    """The longest text of which nothing is evicted and everything is seen."""
    windows = [window.kind.dense_length for window in session._executor.windows]
    return min([session._executor.limits.usable, *windows])


def _heads(manifest: Manifest, path: str | Path | None) -> RetainingHeads | None:
    """The heads that an artifact was compiled with."""
    if manifest.heads is None:
        if path is not None:
            raise ConfigError(f"{path}: the artifact was compiled without retaining heads")
        return None
    if path is None:
        raise ConfigError(
            f"the artifact was compiled with retaining heads (trained on: "
            f"{manifest.heads.trained_on}); wanted the file, too: --heads FILE"
        )
    loaded = load_heads(path)
    if loaded.page != manifest.heads:
        raise ConfigError(f"{path}: other heads than those the artifact was compiled with")
    return loaded


def _specialized(
    manifest: Manifest, loaded: LoadedModel, heads: RetainingHeads | None
) -> Specialized:
    plan = show_plan(tuple(layer.kind for layer in manifest.model.layers))
    half = cache_dtype(manifest.programs) == "float16"
    config = CompileConfig(
        target=manifest.target,
        cache=manifest.cache,
        policy=manifest.policy,
        plan=plan,
        kv_precision="fp16" if half else "fp32",
    )
    facts = (loaded.name, loaded.architecture, loaded.trained_window, heads)
    special = specialize(capture(loaded.module), config, *facts)
    if special.model.layers != manifest.model.layers:
        raise ArtifactError(
            f"{loaded.name} has {len(special.model.layers)} layers of other heads or sizes than "
            f"the artifact's {len(manifest.model.layers)}; it was compiled from another model"
        )
    return special


@torch.no_grad()
def _eager(loaded: LoadedModel, ids: list[int]) -> np.ndarray:
    """Logits [n, V] of the unmodified model."""
    logits = function_of(loaded.module)(torch.tensor([ids]), torch.arange(len(ids))[None])
    return logits[0].float().numpy()


def _logits(session: Session, loaded: LoadedModel, ids: list[int]) -> list[Row]:
    """All logits of a text, read in chunks and, the last eight tokens, one by one."""
    expected, executor = _eager(loaded, ids), session._executor
    session.reset()
    size, single = executor.limits.chunk_size, max(1, len(ids) - 8)
    got, place = np.empty_like(expected), 0
    while place < len(ids):
        step = min(size, single - place) if place < single else 1
        hidden = executor._run(ids[place : place + step], place, place).copy()
        got[place : place + step] = _head_rows(executor._engine, hidden)
        place += step
        executor.used = executor.tokens = place
        for window in executor.windows:
            window.used = place
    session.reset()
    lossy, rows = not _exact(session), []
    for name, part in (("prefill_chunk", slice(single)), ("decode", slice(single, None))):
        if not len(expected[part]):  # layers of a plan see no more than a token densely
            continue
        if lossy:
            lost = divergence(got[part], expected[part])
            rows.append(_row(f"{name} + head, divergence", "the model", lost, MOST_NATS))
        else:
            error = np.abs(got[part] - expected[part]).max()
            rows.append(_row(f"{name} + head", "the model", error, _tolerance(session)))
    if lossy and len(ids) > 1:
        more = perplexity(got, ids) / perplexity(expected, ids) - 1
        rows.append(_row("perplexity, more by", "the model", more, MOST_PERPLEXITY))
    return rows


def _head_rows(engine: Engine, hidden: np.ndarray) -> np.ndarray:
    """Logits of every row [n, V]; the program gives the last row of what it is given."""
    runner, zero = engine.runner("head"), np.zeros(1, np.int64)
    rows = [
        runner({"hidden": hidden[i : i + 1], "next_tokens": zero}, ["logits"])["logits"].copy()
        for i in range(len(hidden))
    ]
    return np.concatenate(rows)


def _weightless(name: str, entry: ProgramEntry, session: Session, reference: Session) -> list[Row]:
    """One call of a score, evict or compact program on random entries."""
    draw, cache = np.random.default_rng(0), session._executor.config
    sizes = {"slots": cache.capacity, "budget": cache.budget, "n": 16, "tokens": 16}
    counts = {
        "used": max(cache.budget + 1, cache.capacity - 5),
        "prefix": cache.sink_size,
        "recent": cache.recent_size,
        "start": max(0, cache.capacity - 16),
    }
    feeds: dict[str, np.ndarray] = {}
    for tensor in entry.inputs:
        shape = [sizes[s] if isinstance(s, str) else s for s in tensor.shape]
        if tensor.name == "new_slots":
            feeds[tensor.name] = np.arange(cache.budget, dtype=np.int64)
        elif tensor.name in counts:
            feeds[tensor.name] = np.array([counts[tensor.name]], np.int32)
        elif tensor.name == "kept":
            heads = [draw.permutation(cache.capacity)[: cache.budget] for _ in range(shape[0])]
            feeds[tensor.name] = np.sort(np.stack(heads), axis=1)
        elif tensor.name == "sentence":
            feeds[tensor.name] = np.tile(np.arange(shape[1]) // 20, (shape[0], 1)).astype("f4")
        elif tensor.name in ("key", "value", "queries"):
            drawn = draw.standard_normal(shape, np.float32)
            feeds[tensor.name] = drawn.astype(tensor.dtype)
        else:
            feeds[tensor.name] = draw.random(shape, np.float32)
    names = [tensor.name for tensor in entry.outputs]
    got = session._executor._engine.runner(name)(feeds, names)
    if "key_out" in got:  # a whole layer, which begins with the entries that were kept
        for kind in ("key", "value"):
            got[f"kept_{kind}"] = got.pop(f"{kind}_out")[:, :, : cache.budget]
        names = list(got)
    of_reference = {t.name: t.dtype for t in reference.manifest.programs[name].inputs}
    exact = {each: array.astype(of_reference[each]) for each, array in feeds.items()}
    wanted = reference._executor._engine.runner(name)(exact, names)
    errors = {n: np.abs(got[n].astype(np.float64) - wanted[n]).max() for n in names}
    # Places and scores are computed in float32, whatever the cache is kept in.
    entries = [errors.pop(n) for n in names if n.startswith("kept_")]
    limits = [
        (name, [*errors.values()], TOLERANCE["float32"]),
        (f"{name}, entries", entries, _tolerance(session)),
    ]
    return [  # np.max, for max() would drop a NaN
        _row(what, "reference", np.max(each), limit) for what, each, limit in limits if each
    ]


def _tokens(session: Session, loaded: LoadedModel, ids: list[int], count: int) -> list[Row]:
    """Greedy tokens: each must be the model's own choice after all those before it."""
    count = min(count, _usable(session) - len(ids) - 1)  # the first cycle changes the tokens
    if count < 1 or not ids:
        return []
    session.reset()
    written = list(session.generate_ids(ids, max_new_tokens=count, eos=[], **GREEDY))
    begin = session.tokens - len(written) - len(ids)  # tokens put before the text
    whole = [*session.tokenizer.prefix[:begin], *ids, *written]
    chosen = _eager(loaded, whole[:-1])[-len(written) :].argmax(-1)
    different = int((chosen != np.array(written)).sum())
    return [_row(f"{len(written)} greedy tokens", "the model", different, 0)]


def _text_of_cycles(session: Session, ids: list[int], more: int = 0) -> list[int]:
    """The text over and over, for two cycles, and so many tokens more."""
    usable = session._executor.limits.usable
    count = usable + 2 * (usable - session._executor.config.budget) + more
    return (ids * (1 + count // len(ids)))[:count]


def _cycles_lost(session: Session, reference: Session, ids: list[int]) -> list[Row]:
    """A text of several cycles: how much worse its end is predicted from what was kept."""
    last = min(64, session._executor.config.budget)
    text = _text_of_cycles(session, ids, last)
    surprise = []
    for each in (session, reference):
        each.reset()
        each.feed(text[:-last])
        cycles = len(each.cycles)
        surprise.append(float(each.surprise(text[-last:]).mean(dtype=np.float64)))
        each.reset()
    more = np.exp(surprise[0] - surprise[1]) - 1
    what = f"perplexity after {cycles} cycles, more by"
    return [_row(what, "reference", more, MOST_AFTER_CYCLES)]


def _cycles(session: Session, reference: Session, ids: list[int]) -> list[Row]:
    """A text of several cycles: the same entries kept, the same next token."""
    text = _text_of_cycles(session, ids)
    kept, logits = [], []
    for each in (session, reference):
        each.reset()
        each.feed(text)
        layers = range(len(each.manifest.model.layers))
        kept.append(np.concatenate([each.kept_tokens(i).ravel() for i in layers]))
        logits.append(each._executor.logits().copy())
    cycles, error = len(session.cycles), np.abs(logits[0] - logits[1]).max()
    different = int((kept[0] != kept[1]).sum())
    session.reset()
    return [
        _row(f"entries kept by {cycles} cycles", "reference", different, 0),
        _row(f"logits after {cycles} cycles", "reference", error, _tolerance(session)),
    ]
