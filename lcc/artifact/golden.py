"""`golden.json`: a short transcript of a model, which every runtime reproduces.

The compiler makes it with the eager reference (`make_golden`); `lcc verify --golden` and
`examples/05_runtime_in_one_file.py` compare. What the fields mean is in `docs/format.md`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from lcc.artifact.manifest import Manifest, cache_dtype
from lcc.artifact.schedule import Strict, TextFacts
from lcc.artifact.session_sizes import LOWERED
from lcc.errors import ArtifactError

GOLDEN = "golden.json"
NEXT_TOKENS = 8
TOP = 8  # logits that are written down of each place
LAYERS = 4  # whose kept positions are written down, at most
# Counters that say what a runtime is doing now; all others describe the cache.
PASSING = ("n", "start", "layer", "left")

# Largest difference of logits, in standard deviations of the logits. Of weights and cache in
# float32, which are as precise as the reference, times 1 at least. Of others, with the share of
# the kept positions of a layer that may differ.
EXACT = 1e-3
LOSSY = {"fp32": (0.1, 0.1), "int8": (1.0, 0.25), "int4": (2.0, 0.4), "given": (2.0, 0.4)}


class Sizes(Strict, frozen=True, kw_only=True):
    """Sizes of the session, in entries per KV head and in tokens."""

    capacity: int
    budget: int
    chunk_size: int


class CycleRecord(Strict, frozen=True, kw_only=True):
    """What a cycle left: layer -> token positions of each KV head, ascending."""

    tokens: int
    counters: dict[str, int]
    kept: dict[int, tuple[tuple[int, ...], ...]]


class LogitsRecord(Strict, frozen=True, kw_only=True):
    """The largest logits of the token after `tokens` tokens: pairs of id and logit."""

    tokens: int
    top: tuple[tuple[int, float], ...]


class Tolerance(Strict, frozen=True, kw_only=True):
    """Largest difference of a logit; share of a layer's kept positions that may differ."""

    logits: float
    kept: float


class Golden(Strict, frozen=True, kw_only=True):
    """All of `golden.json`."""

    sizes: Sizes
    ids: tuple[int, ...]
    cycles: tuple[CycleRecord, ...]
    logits: tuple[LogitsRecord, ...]
    next: tuple[int, ...]
    tolerance: Tolerance
    exact: bool


class Reader(Protocol):
    """What a transcript needs of `lcc.runtime.core.executor.Executor`."""

    limits: Any
    beginning: list[int]
    reads_catalyst: bool

    @property
    def counters(self) -> dict[str, int]:
        """The counters of the manifest, as they are now."""

    @property
    def used(self) -> int:
        """Entries per KV head of the full layers."""

    @property
    def tokens(self) -> int:
        """Tokens read so far."""

    def read(self, ids: Sequence[int]) -> None:
        """Read token ids into free slots."""

    def evict(self, catalyst: Sequence[int], left: int = -1) -> object:
        """Run a cycle; `left`: tokens still to be read after a text's last one."""

    def logits(self) -> np.ndarray:
        """[V] float32 for the next token."""

    def kept_tokens(self, layer: int) -> np.ndarray:
        """[Hkv, used] int64: the token position of every entry of a layer."""


class Transcript(NamedTuple):
    """What a runtime computes of given ids.

    cycles      after each cycle
    logits      tokens read, and logits [V] float32 then: at the end and after each next token
    chosen      the most probable token at each of these places but the last
    """

    cycles: list[CycleRecord]
    logits: list[tuple[int, np.ndarray]]
    chosen: list[int]


def transcript(
    executor: Reader,
    manifest: Manifest,
    ids: Sequence[int],
    *,
    layers: Sequence[int],
    follow: Sequence[int] | None = None,
) -> Transcript:
    """Read ids as one text that ends with them, then the next tokens one by one.

    Args:
        executor: An empty one.
        manifest: Of the artifact that it runs.
        ids: To read.
        layers: Whose kept positions are recorded.
        follow: The next tokens; None = `NEXT_TOKENS` tokens, each the most probable one.
    """
    recorder = _Recorder(executor, manifest, layers)
    recorder.read(ids, ends=True)
    logits, chosen = [], []
    for place in range(NEXT_TOKENS if follow is None else len(follow)):
        logits.append((executor.tokens, executor.logits().copy()))
        chosen.append(int(logits[-1][1].argmax()))
        recorder.read([chosen[-1] if follow is None else follow[place]])
    logits.append((executor.tokens, executor.logits().copy()))
    return Transcript(recorder.cycles, logits, chosen)


class _Recorder:
    """Reads into an executor and writes down what every cycle leaves."""

    def __init__(self, executor: Reader, manifest: Manifest, layers: Sequence[int]) -> None:
        self._executor, self._text, self._layers = executor, manifest.text, layers
        self._counters = sorted(manifest.counters.keys() - set(PASSING))
        self.cycles: list[CycleRecord] = []

    def read(self, ids: Sequence[int], *, ends: bool = False) -> None:
        """Read any number of ids; `ends`: the text ends with them."""
        executor, limits = self._executor, self._executor.limits
        while ids:
            room = limits.usable - executor.used
            if room <= 0:
                last = ends and len(ids) <= limits.usable - limits.budget
                self._evict(len(ids) if last else -1)
                continue
            executor.read(ids[:room])
            ids = ids[room:]

    def _evict(self, left: int) -> None:
        executor = self._executor
        executor.evict(_catalyst(executor, self._text), left)
        counters = executor.counters
        self.cycles.append(
            CycleRecord(
                tokens=executor.tokens,
                counters={name: counters[name] for name in self._counters},
                kept={
                    layer: tuple(tuple(head) for head in executor.kept_tokens(layer).tolist())
                    for layer in self._layers
                },
            )
        )


def _catalyst(executor: Reader, text: TextFacts) -> list[int]:
    if text.catalyst is None or not executor.reads_catalyst:
        return []
    if text.catalyst.ids is not None:
        return list(text.catalyst.ids)
    ids = [*text.separator, *executor.beginning[: text.catalyst.beginning]]
    return ids[: executor.limits.reserved]


def make_golden(executor: Reader, manifest: Manifest, ids: Sequence[int]) -> Golden:
    """Write down what the eager reference computes.

    Args:
        executor: An empty one, of the sizes that `golden_sizes` gives, on the reference engine.
        manifest: Of the artifact: its precision and its cache decide the tolerance.
        ids: From `golden_ids`.
    """
    seen = transcript(executor, manifest, ids, layers=recorded_layers(manifest))
    limits = executor.limits
    exact = manifest.precision == "fp32" and cache_dtype(manifest) == "float32"
    return Golden(
        sizes=Sizes(**{name: getattr(limits, name) for name in LOWERED}),
        ids=tuple(ids),
        cycles=tuple(seen.cycles),
        logits=tuple(_top(tokens, logits) for tokens, logits in seen.logits),
        next=tuple(seen.chosen),
        tolerance=_tolerance(manifest, seen, exact=exact),
        exact=exact,
    )


def _tolerance(manifest: Manifest, seen: Transcript, *, exact: bool) -> Tolerance:
    deviation = float(np.std(np.stack([logits for _, logits in seen.logits])))
    if exact:
        return Tolerance(logits=_rounded(EXACT * max(1.0, deviation)), kept=0.0)
    share, kept = LOSSY[manifest.precision]
    return Tolerance(logits=_rounded(share * deviation), kept=kept)


def _top(tokens: int, logits: np.ndarray) -> LogitsRecord:
    best = np.argsort(-logits, kind="stable")[:TOP].tolist()
    return LogitsRecord(tokens=tokens, top=tuple((i, _rounded(logits[i])) for i in best))


def _rounded(value: float) -> float:
    """To 7 digits: all that a float32 has."""
    return float(f"{value:.7g}")


def recorded_layers(manifest: Manifest) -> list[int]:
    """Layers whose kept positions a golden holds: of every group, spread over the model."""
    chosen = [group.layers[len(group.layers) // 2] for group in manifest.groups if group.layers]
    layers = range(len(manifest.model.layers))
    for place in (0, len(layers) - 1, len(layers) // 3, 2 * len(layers) // 3) if layers else ():
        if len(chosen) < LAYERS and layers[place] not in chosen:
            chosen.append(layers[place])
    return sorted(chosen)


def golden_bytes(golden: Golden) -> bytes:
    """The bytes of `golden.json`: sorted keys, one newline at the end."""
    page = msgspec.to_builtins(golden, str_keys=True)
    return msgspec.json.encode(page, order="sorted") + b"\n"


def read_golden(folder: str | Path) -> Golden:
    """Read `golden.json` of an artifact.

    Raises:
        ArtifactError: it is missing, or is not what `docs/format.md` describes.
    """
    path = Path(folder) / GOLDEN
    try:
        golden = msgspec.json.decode(path.read_bytes(), type=Golden)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot read it ({error.strerror}); compile the model anew"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: {error}") from None
    if len(golden.logits) != len(golden.next) + 1:
        raise ArtifactError(
            f"{path}: logits of {len(golden.logits)} places, wanted one more than next has tokens "
            f"({len(golden.next)})"
        )
    return golden
