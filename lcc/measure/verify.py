"""Hold an artifact against its model: every program against eager PyTorch, then whole texts."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

import lcc.runtime
from lcc.artifact.manifest import Manifest, cache_dtype, read_manifest
from lcc.capture.export import capture, function_of
from lcc.compile import exact_of
from lcc.config import CompileConfig
from lcc.errors import ArtifactError, ConfigError
from lcc.ir.lazy_tensor import lazy_bytes
from lcc.ir.plan import Full, show_plan
from lcc.ir.program import HEAD
from lcc.ir.weight_reads import weights_kept
from lcc.measure.comparison import Report, Row, compared, logits_tolerance
from lcc.measure.loss import divergence, perplexity
from lcc.measure.machine import free_memory
from lcc.measure.second_reader import read_again
from lcc.measure.weightless import weightless
from lcc.passes.policies import make_policy
from lcc.passes.specialize import Specialized, Subject, specialize
from lcc.runtime.model import Model
from lcc.runtime.session import Session
from lcc.runtime.text.writing import GREEDY
from lcc.sources.heads import RetainingHeads, load_heads
from lcc.sources.models import LoadedModel, loaded_model, quiet_transformers
from lcc.sources.text_facts import sentence_ends_for
from lcc.sources.weights import check_finite
from lcc.targets.reference import ReferenceEngine

# Of weights in fewer than 32 bits: nats a token, and share of the perplexity.
MOST_NATS, MOST_PERPLEXITY = 0.05, 0.05
MOST_AFTER_CYCLES = 0.3  # the same, where the cycles may have kept other entries


def verify(
    artifact: str | Path,
    source: str | Path | LoadedModel | nn.Module,
    *,
    heads: str | Path | None = None,
    target: str | None = None,
    device: Literal["cpu"] | None = None,
    allow_native: bool = False,
    trusted_keys: Sequence[str | Path] | None = None,
    prompt_tokens: int = 600,
    new_tokens: int = 64,
    progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Compare an artifact with the model it was compiled from.

    artifact        the folder
    source          what it was compiled from, as for `compile_model`
    target, device, allow_native, trusted_keys  see `lcc.runtime.load`
    heads           the file of retaining heads that it was compiled with, if it was
    prompt_tokens   length of the text read where nothing is evicted
    new_tokens      greedy tokens that must be the model's own

    Logits and tokens are compared with the unmodified model, which is read a second time by other
    means than those it was compiled by, see `second_reader`; the weightless programs and a text
    long enough for cycles with the reference target. Of weights or a cache in fewer than 32 bits
    neither logits nor what cycles keep can be the same: then it is what they lose in divergence and
    perplexity.

    Raises:
        ArtifactError: the artifact is damaged, or was made from another kind of model.
        ConfigError: it was compiled with retaining heads, and these are not the ones; or there is
            no memory for the model.
    """
    if prompt_tokens < 2:
        raise ConfigError(
            f"prompt_tokens is {prompt_tokens}, wanted a chunk and a token: 2 or more"
        )
    report = progress or (lambda *_: None)
    trained = _heads(read_manifest(artifact), heads)
    model = lcc.runtime.load(
        artifact,
        target=target,
        device=device,
        allow_native=allow_native,
        trusted_keys=trusted_keys,
    )
    session = model.session()
    report("load the model", 0.1)
    loaded = loaded_model(source, lazy=True)
    with weights_kept(_room_beside(loaded)):
        rows = _rows(source, loaded, trained, session, prompt_tokens, new_tokens, report)
    report("done", 1.0)
    return Report(tuple(rows), exact=_exact(session))


def _room_beside(loaded: LoadedModel) -> int:
    """Bytes of weights to keep in memory, beside those of the model that is read a second time.

    Raises:
        ConfigError: there is no room for that one.
    """
    size, free = lazy_bytes(loaded.module), free_memory()
    if free is None or not size:
        return size
    if size > free:
        raise ConfigError(
            f"{loaded.name}: reading it a second time takes {size / 1e9:.1f} GB (its weights in "
            f"float32), {free / 1e9:.1f} GB are free; verify it on a machine that has them, or "
            "hold the artifact against its golden.json, which needs no model: lcc verify --golden"
        )
    return min(size, free - size)


def _rows(
    source: str | Path | LoadedModel | nn.Module,
    loaded: LoadedModel,
    trained: RetainingHeads | None,
    session: Session,
    prompt_tokens: int,
    new_tokens: int,
    report: Callable[[str, float], None],
) -> list[Row]:
    """All comparisons, in order."""
    model, manifest = session.model, session.manifest
    check_finite(loaded.module, loaded.name)
    report("specialize", 0.4)
    special = _specialized(manifest, loaded, trained)
    engine = ReferenceEngine(special.programs)
    exact = exact_of(manifest, special)
    reference = Model(exact, model.tokenizer, engine).session()
    ids, rows = _ids(session), list[Row]()
    report("read the model again", 0.45)
    model_again = _again(source, loaded, session)
    text = ids[: min(prompt_tokens, _usable(session))]
    report("logits", 0.5)
    if model_again is not loaded.module:
        rows += _read_twice(session, loaded.module, model_again, text)
    rows += _logits(session, model_again, text)
    lossy = not _exact(session)
    report("weightless programs", 0.7)
    for program in special.programs:
        if not program.is_step and program.names[0] != HEAD:
            rows += weightless(program.names[0], model.engine, engine, manifest)
    report("greedy tokens", 0.8)
    if not lossy:
        rows += _tokens(session, model_again, ids[: _usable(session) // 2], new_tokens)
    report("cycles", 0.9)
    if session._executor.limits.evicts:
        rows += (_cycles_lost if lossy else _cycles)(session, reference, ids)
    return rows


def _tolerance(session: Session, expected: np.ndarray) -> float:
    """How far logits may be from the expected ones."""
    layers = len(session.manifest.model.layers)
    return logits_tolerance(cache_dtype(session.manifest), float(np.abs(expected).max()), layers)


def _again(
    source: str | Path | LoadedModel | nn.Module, loaded: LoadedModel, session: Session
) -> nn.Module:
    """The model by the second reader; a module that was handed over is all there is of it."""
    if isinstance(source, str | Path):
        with quiet_transformers():
            return read_again(source, length=_usable(session))
    return loaded.module


def _read_twice(session: Session, module: nn.Module, again: nn.Module, ids: list[int]) -> list[Row]:
    """Whether both readers have the same model."""
    expected = _eager(again, ids)
    error, most = np.abs(_eager(module, ids) - expected).max(), _tolerance(session, expected)
    return [compared("the model as it was compiled", "the model, read again", error, most)]


def _exact(session: Session) -> bool:
    """Whether it should give the very numbers: weights and cache are in float32."""
    return session.manifest.precision == "fp32" and cache_dtype(session.manifest) == "float32"


def _ids(session: Session) -> list[int]:
    """A text that is always the same; random ids where there is no tokenizer."""
    if session.tokenizer.knows_text:
        return session.encode(Path(argparse.__file__).read_text(encoding="utf-8"))
    size = session.manifest.model.vocab_size
    ids: list[int] = np.random.default_rng(0).integers(size, size=20_000).tolist()
    return ids


def _usable(session: Session) -> int:
    """The longest text of which nothing is evicted and everything is seen."""
    kinds = [layer.kind for layer in session.manifest.model.layers]
    dense = [kind.dense_length for kind in kinds if not isinstance(kind, Full)]
    return min([session._executor.limits.usable, *dense])


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
    config = CompileConfig(
        target=manifest.target,
        cache=manifest.cache,
        policy=manifest.policy,
        plan=show_plan(tuple(layer.kind for layer in manifest.model.layers)),
        kv_precision="fp16" if cache_dtype(manifest) == "float16" else "fp32",
    )
    captured = capture(loaded.module)
    policy = make_policy(config.policy, with_heads=heads is not None)
    ends = sentence_ends_for(policy, loaded.name, loaded.files, captured.vocab_size)
    subject = Subject(
        captured, loaded.name, loaded.architecture, loaded.trained_window, ends, heads
    )
    special = specialize(subject, config, policy)
    if special.model.layers != manifest.model.layers:
        raise ArtifactError(
            f"{loaded.name} has {len(special.model.layers)} layers of other heads or sizes than "
            f"the artifact's {len(manifest.model.layers)}; it was compiled from another model"
        )
    return special


@torch.no_grad()
def _eager(module: nn.Module, ids: list[int]) -> np.ndarray:
    """Logits [n, V] of the unmodified model."""
    logits = function_of(module)(torch.tensor([ids]), torch.arange(len(ids))[None])
    return logits[0].float().numpy()


def _logits(session: Session, module: nn.Module, ids: list[int]) -> list[Row]:
    """All logits of a text, read in chunks and, the last eight tokens, one by one."""
    expected, executor = _eager(module, ids), session._executor
    session.reset()
    size, single = executor.limits.chunk_size, max(1, len(ids) - 8)
    got, place = np.empty_like(expected), 0
    while place < len(ids):
        step = min(size, single - place) if place < single else 1
        for logits in executor.each_logits(ids[place : place + step]):
            got[place], place = logits, place + 1
    session.reset()
    lossy, rows = not _exact(session), []
    for name, part in (("prefill_chunk", slice(single)), ("decode", slice(single, None))):
        if not len(expected[part]):  # layers of a plan see no more than a token densely
            continue
        if lossy:
            lost = divergence(got[part], expected[part])
            rows.append(compared(f"{name} + head, divergence", "the model", lost, MOST_NATS))
        else:
            error = np.abs(got[part] - expected[part]).max()
            most = _tolerance(session, expected)
            rows.append(compared(f"{name} + head", "the model", error, most))
    if lossy and len(ids) > 1:
        more = perplexity(got, ids) / perplexity(expected, ids) - 1
        rows.append(compared("perplexity, more by", "the model", more, MOST_PERPLEXITY))
    return rows


def _tokens(session: Session, module: nn.Module, ids: list[int], count: int) -> list[Row]:
    """Greedy tokens: each must be the model's own choice, or as good, after all those before it."""
    count = min(count, _usable(session) - len(ids) - 1)  # the first cycle changes the tokens
    if count < 1 or not ids:
        return []
    session.reset()
    written = list(session.generate_ids(ids, max_new_tokens=count, eos=[], **GREEDY))
    begin = session.tokens - len(written) - len(ids)  # tokens put before the text
    whole = [*session.tokenizer.prefix[:begin], *ids, *written]
    expected = _eager(module, whole[:-1])[-len(written) :]
    lost = expected.max(-1) - expected[np.arange(len(written)), written]
    different = int((lost > _tolerance(session, expected)).sum())
    return [compared(f"{len(written)} greedy tokens", "the model", different, 0)]


def _text_of_cycles(session: Session, ids: list[int], more: int = 0) -> list[int]:
    """The text over and over, for two cycles, and so many tokens more."""
    limits = session._executor.limits
    count = limits.usable + 2 * (limits.usable - limits.budget) + more
    return (ids * (1 + count // len(ids)))[:count]


def _cycles_lost(session: Session, reference: Session, ids: list[int]) -> list[Row]:
    """A text of several cycles: how much worse its end is predicted from what was kept."""
    last = min(64, session._executor.limits.budget)
    text = _text_of_cycles(session, ids, last)
    nll = []
    for each in (session, reference):
        each.reset()
        each.feed(text[:-last])
        cycles = len(each.cycles)
        nll.append(float(each.nll(text[-last:]).mean(dtype=np.float64)))
        each.reset()
    more = np.exp(nll[0] - nll[1]) - 1
    what = f"perplexity after {cycles} cycles, more by"
    return [compared(what, "reference", more, MOST_AFTER_CYCLES)]


def _cycles(session: Session, reference: Session, ids: list[int]) -> list[Row]:
    """A text of several cycles: the same entries kept, the same next token."""
    text = _text_of_cycles(session, ids)
    kept, logits = [], []
    for each in (session, reference):
        each.reset()
        each.feed(text)
        layers = range(len(each.manifest.model.layers))  # none may attend
        kept.append([token for i in layers for token in each.kept_tokens(i).ravel().tolist()])
        logits.append(each._executor.logits().copy())
    cycles, error = len(session.cycles), np.abs(logits[0] - logits[1]).max()
    different = sum(one != other for one, other in zip(*kept, strict=True))
    session.reset()
    most = _tolerance(session, logits[1])
    return [
        compared(f"entries kept by {cycles} cycles", "reference", different, 0),
        compared(f"logits after {cycles} cycles", "reference", error, most),
    ]
