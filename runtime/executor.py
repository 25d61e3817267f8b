"""Runs the programs over the cache: one step, one cycle, the logits. Knows no text.

The cache and the numbers beside it change together or not at all: a step writes behind `used`, and
the fields that make its entries part of the cache are set last.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lcc.artifact.manifest import Manifest, cache_dtype
from lcc.config import BEGINNING_TOKENS, RECENT_QUERIES, CacheConfig
from lcc.errors import ArtifactError, CacheError
from lcc.runtime.cycle import Limits
from lcc.runtime.engines.base import Engine
from lcc.runtime.evictions import Evictions
from lcc.runtime.kv_cache import KVCache
from lcc.runtime.noise import noise
from lcc.runtime.novelty import Novelty
from lcc.runtime.recent_queries import RecentQueries
from lcc.runtime.scoring import Scoring
from lcc.runtime.sentences import Sentences
from lcc.runtime.windows import Window, windows_of


@dataclass(frozen=True)
class Cycle:
    """What one eviction did.

    tokens          tokens read before it
    used_before     entries per KV head before and after
    used_after
    seconds         it took, scoring included
    """

    tokens: int
    used_before: int
    used_after: int
    seconds: float


class Executor:
    """The cache of one session and the programs that work on it.

    used            entries per KV head, in slots 0 .. used-1
    tokens          tokens read since the beginning, which is the position of the next one
    protected       leading slots that no cycle evicts, besides the sinks
    windows         layers of other kinds than full, and how full they are
    since_cycle     ids of the tokens read since the last cycle: those a rewind can take back
    novelty         what is known of their novelty, and what waits
    beginning       ids of the first tokens of the text, at most 32
    surprise        where it is a list, every read adds the novelty of its tokens
    cycle_token     id of the last token read before the last cycle; None = there was none
    """

    def __init__(
        self,
        manifest: Manifest,
        cache: CacheConfig,
        engine: Engine,
        *,
        sentences: Sentences | None = None,
        seed: int = 0,
    ) -> None:
        """`sentences` is needed where the policy reads the scalar of that name."""
        for name in ("prefill_chunk", "decode", "head"):
            if name not in manifest.programs:
                raise ArtifactError(f"the artifact has no program {name}; compile it anew")
        self.layers, self.config, self._engine = manifest.model.layers, cache, engine
        self._seed, self._sentences = seed, sentences
        self._programs = manifest.programs
        self._tail_size = manifest.policy.tail_size
        dtype = cache_dtype(manifest.programs)
        self.cache = KVCache(self.layers, cache.capacity, manifest.scalars, dtype, engine.zeros)
        self._scoring = Scoring(manifest, self.cache, engine)
        self._queries = self._scoring.queries
        self.limits = Limits.of(
            cache,
            catalyst=self._queries == "catalyst",
            evicts=all(e.evict is not None for e in self.layers if e.slots is None),
        )
        self.windows = windows_of(self.layers)
        rolling = self._scoring.layers if self._queries == "recent" else []
        self.recent = RecentQueries(
            {i: (self.layers[i].query_heads, self.layers[i].head_size) for i in rolling}
        )
        # Layer -> the output with the retaining scores of its new entries.
        signature = manifest.programs["prefill_chunk"]
        given = {tensor.name for tensor in signature.outputs}
        every = {i: f"retaining_{i}" for i in range(len(self.layers))}
        self._retaining = {i: name for i, name in every.items() if name in given}
        heads = max(layer.kv_heads for layer in self.layers)
        most = max(cache.chunk_size, cache.catalyst_size)
        self._new_retaining = np.zeros((len(self.layers), heads, most), np.float32)
        # Steps of fixed length, and artifacts of before, hand out the queries of all rows.
        self._chooses_rows = any(tensor.name == "query_rows" for tensor in signature.inputs)
        self._new_slots = np.arange(cache.budget, dtype=np.int64)
        self._evictions = Evictions(engine, manifest.programs, self.cache, cache.budget)
        self._step, self._decode = engine.runner("prefill_chunk"), engine.runner("decode")
        self._bind_steps(range(len(self.layers)))
        for window in self.windows:
            self._step.bind(window.buffers)
            self._decode.bind(window.buffers)
        self._head = engine.runner("head")
        for name in manifest.programs:  # the first cycle must not depend on what became of a file
            engine.runner(name)
        self._reads_novelty = "novelty" in manifest.scalars
        waiting = self.limits.usable if self._reads_novelty else 0
        self.novelty = Novelty(self._head, waiting, manifest.model.hidden_size)
        self.surprise: list[np.ndarray] | None = None
        self.reset()

    def _bind_steps(self, layers: Iterable[int]) -> None:
        """Let the steps read and write the cache of these layers."""
        buffers = {f"key_{i}": self.cache.keys[i] for i in layers}
        buffers |= {f"value_{i}": self.cache.values[i] for i in layers}
        self._step.bind(buffers)
        self._decode.bind(buffers)

    def reset(self) -> None:
        """Forget everything that was read; buffers stay as they are."""
        self.used = self.tokens = self.protected = 0
        self.since_cycle: list[int] = []
        self.cycle_token: int | None = None
        self.beginning: list[int] = []
        self.hidden: np.ndarray | None = None  # [1, h] of the last token; None = not known now
        self.cycle_hidden: np.ndarray | None = None  # [1, h] of the last token before the cycle
        self.novelty.known = 0
        self.recent.clear()
        for window in self.windows:
            window.reset()
        self._logits: np.ndarray | None = None
        self.broken = False

    def check(self) -> None:
        """Refuse to go on with a cache that a failed cycle left half compacted."""
        if self.broken:
            raise CacheError("a cycle failed half-way and the cache is lost; reset() the session")

    def read(self, ids: Sequence[int]) -> None:
        """Read 1 .. chunk_size tokens into the slots after `used`; the caller has made room."""
        self.check()
        while ids:
            size = self.config.chunk_size
            rooms = [window.room(self.tokens, size) for window in self.windows]
            count = min([len(ids), *(room for room in rooms if room is not None)])
            for window in self.windows:
                if window.is_due(self.tokens, size, count):
                    self._compact(window)
            self._read(ids[:count])
            ids = ids[count:]

    def _read(self, ids: Sequence[int]) -> None:
        count = len(ids)
        heard = self._reads_novelty or self.surprise is not None
        if heard:
            self._find_hidden()
        scored_now = self._queries in ("recent", "all")
        hidden = self._run(ids, self.used, self.tokens, fetch_queries=scored_now)
        new_scalars = self._hear(ids, hidden) if heard else {}
        if "noise" in self.cache.scalar_names:
            heads = max(layer.kv_heads for layer in self.layers)
            drawn = noise(self._seed, len(self.layers), heads, self.tokens, count)
            new_scalars["noise"] = drawn[self.cache.full]
        if self._sentences is not None and self.cache.full:
            new_scalars["sentence"] = self._sentence_starts(self._sentences, ids)
        if self._retaining:
            new_scalars |= self._expected(count)
        self.cache.place(self.used, self.tokens, count, **new_scalars)
        if self._queries == "recent":
            self.recent.append(self._new_queries)
        elif self._queries == "all":
            self._scoring.add(self._new_queries, self.used)
        self.hidden, self._logits = hidden[-1:].copy(), None
        self.since_cycle += ids
        self.beginning += ids[: max(0, BEGINNING_TOKENS - self.tokens)]
        self.used, self.tokens = self.used + count, self.tokens + count
        for window in self.windows:
            window.used += count

    def _hear(self, ids: Sequence[int], hidden: np.ndarray) -> dict[str, np.ndarray]:
        """Their novelty where a caller listens, as the scalar where the policy reads it, too.

        hidden      [n, h], after each of them
        """
        first = np.zeros_like(hidden[:1]) if self.hidden is None else self.hidden
        before, read = np.concatenate([first, hidden[:-1]]), len(self.since_cycle)
        if self._reads_novelty:
            self.novelty.wait(read, before)
        if self.surprise is None:
            return {}
        novelty = self.novelty.of(before, ids, first=self.tokens == 0)
        self.surprise.append(novelty)
        if not self._reads_novelty or self.novelty.known < read:
            return {}
        self.novelty.known = read + len(ids)
        return {"novelty": novelty}

    def _expected(self, count: int) -> dict[str, np.ndarray]:
        """What retaining heads say of the newest entries, as the scalar that the policy reads."""
        if "retaining" in self.cache.scalar_names:
            return {"retaining": self._new_retaining[self.cache.full, :, :count]}
        # The logarithm of the attention that they expect; the highest that exp() can take is 88.
        of_heads = [
            self._new_retaining[i, : self.layers[i].kv_heads, :count] for i in self._retaining
        ]
        return {"consensus": np.exp(np.concatenate(of_heads).clip(max=80.0)).mean(axis=0)}

    def _sentence_starts(self, sentences: Sentences, ids: Sequence[int]) -> np.ndarray:
        """[n] float32, equal for the tokens of one sentence."""
        previous = self.since_cycle[-1] if self.since_cycle else self.cycle_token
        of_layer = self.cache.scalar("sentence", self.cache.full[0])
        start = int(of_layer[0, self.used - 1]) if self.used else 0
        return sentences.starts(ids, self.tokens, previous, start)

    def _run(
        self, ids: Sequence[int], slot: int, position: int, *, fetch_queries: bool = False
    ) -> np.ndarray:
        """Run a step at `slot`; returns hidden [n, h], sets `_new_queries`: layer -> [Hq, n, D]."""
        tokens = np.asarray(ids, np.int64)[None]
        first = slot if self.config.positions == "contiguous" else position
        feeds: dict[str, np.ndarray] = {
            "tokens": tokens,
            "positions": np.arange(first, first + tokens.size, dtype=np.int64)[None],
            "used": np.array([slot], np.int32),
        }
        for window in self.windows:
            behind = window.used + slot - self.used
            window.place(behind, position, tokens.size)
            feeds |= window.feeds(behind)
        fetch = ["hidden", *self._retaining.values()]
        fetch += [f"queries_{i}" for i in self._scoring.layers if fetch_queries]
        if self._chooses_rows:
            feeds["query_rows"] = self._query_rows(tokens.size, fetched=fetch_queries)
        runner = self._decode if tokens.size == 1 else self._step
        results = runner(feeds, fetch)
        self._new_queries = {
            i: results[f"queries_{i}"] for i in self._scoring.layers if fetch_queries
        }
        for i, name in self._retaining.items():
            scores = results[name]  # [Hkv, n]
            self._new_retaining[i, : scores.shape[0], : tokens.size] = scores
        hidden: np.ndarray = results["hidden"][0]
        return hidden

    def _query_rows(self, count: int, *, fetched: bool) -> np.ndarray:
        """[R] int64: the rows of a step of `count` tokens whose queries somebody reads, or one."""
        if not fetched:
            return np.zeros(1, np.int64)
        newest = RECENT_QUERIES if self._queries == "recent" else count
        return np.arange(max(0, count - newest), count, dtype=np.int64)

    def _find_hidden(self) -> None:
        """After a rewind the last token's hidden state is not known: read that token once more."""
        if self.hidden is None and self.used > 0:
            hidden = self._run(self.since_cycle[-1:], self.used - 1, self.tokens - 1)
            self.hidden = hidden.copy()

    def _find_recent(self) -> None:
        """After a rewind queries of the newest tokens may be missing: read those tokens once more.

        As many as a rewind could take back: what they see is still there.
        """
        count = min(RECENT_QUERIES, self.rewindable)
        if self.recent.count >= count:
            return
        self.recent.clear()
        for ago in range(count, 0, -self.config.chunk_size):
            part = self.since_cycle[-ago:][: self.config.chunk_size]
            self._run(part, self.used - ago, self.tokens - ago, fetch_queries=True)
            self.recent.append(self._new_queries)

    def logits(self) -> np.ndarray:
        """[V] float32 for the token after the last one read; the same array until the next step."""
        self.check()
        if self._logits is None:
            self._find_hidden()
            if self.hidden is None:
                raise CacheError("nothing was read yet, nothing to go on from; feed a text")
            feeds = {"hidden": self.hidden, "next_tokens": np.zeros(1, np.int64)}
            self._logits = self._head(feeds, ["logits"])["logits"][0].copy()
        return self._logits

    def find_novelty(self) -> None:
        """Of all that was read, where the policy wants it: what no cycle needs is not computed."""
        known, read = self.novelty.known, len(self.since_cycle)
        if self._reads_novelty and known < read:
            novelty = self.novelty.rest(self.since_cycle, first=read == self.tokens)
            self.cache.note("novelty", self.used - read + known, novelty)

    def evict(self, catalyst: Sequence[int], left: int | None = None) -> Cycle:
        """One cycle: score, then keep `budget` entries of every layer; needs used > budget.

        catalyst    ids run over the full cache where the policy asks for them; not kept
        left        tokens still to read of a text whose last cycle this is; None = it is not
        """
        self.check()
        begin, before = time.perf_counter(), self.used
        self.find_novelty()
        if self._queries == "catalyst":
            self._scoring.add(self._catalyst_queries(catalyst), self.used)
        elif self._queries == "recent":
            self._find_recent()
            count = self.recent.count
            newest = {i: self.recent.get(i) for i in self.recent.layers}
            self._scoring.add(newest, self.used - count)
        self._scoring.agree(self.used)
        self._find_hidden()
        if self.since_cycle:
            self.cycle_token = self.since_cycle[-1]
        self.broken = True
        numbers: dict[str, np.ndarray] = {
            "used": np.array([self.used], np.int32),
            "prefix": np.array([max(self.config.sink_size, self.protected)], np.int32),
            "recent": np.array([self._recent_size(left)], np.int32),
            "new_slots": self._new_slots,
        }
        for i in self.cache.full:
            self._evict_layer(i, numbers)
        self.used, self.since_cycle, self.cycle_hidden = self.config.budget, [], self.hidden
        self.novelty.known = 0
        self.recent.clear()
        self.broken = False
        return Cycle(self.tokens, before, self.used, time.perf_counter() - begin)

    def _recent_size(self, left: int | None) -> int:
        """Newest entries that a cycle keeps, whatever their rank."""
        if left is None or self._tail_size is None:
            return self.config.recent_size
        room = self.config.budget - max(self.config.sink_size, self.protected)
        return min(max(0, self._tail_size - left), room)

    def _catalyst_queries(self, ids: Sequence[int]) -> dict[int, np.ndarray]:
        """Queries of the catalyst prompt behind the full cache: layer -> [Hq, n, D]."""
        for window in self.windows:
            if window.is_due(self.tokens, self.config.chunk_size, len(ids)):
                self._compact(window)
        size, parts = self.limits.chunk_size, []
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            self._run(part, self.used + start, self.tokens + start, fetch_queries=True)
            parts.append({i: queries.copy() for i, queries in self._new_queries.items()})
        return {
            i: np.concatenate([part[i] for part in parts], axis=1) for i in self._scoring.layers
        }

    def _compact(self, window: Window) -> None:
        """Drop what no query sees any more."""
        kept = window.kept()
        if kept.shape[1] == window.used:
            return
        new_slots = np.arange(kept.shape[1], dtype=np.int64)
        self.broken = True
        for i in window.layers:
            of_layer = kept[: self.layers[i].kv_heads]
            self._keep(i, {"kept": of_layer, "new_slots": new_slots}, of_layer)
        window.compact(kept)
        self.broken = False

    def _evict_layer(self, i: int, numbers: dict[str, np.ndarray]) -> None:
        reads = {tensor.name for tensor in self._programs[str(self.layers[i].evict)].inputs}
        names = [name for name in self.cache.scalar_names if name in reads]
        self._keep(i, numbers | {name: self.cache.scalar(name, i) for name in names})

    def _keep(self, i: int, feeds: dict[str, np.ndarray], kept: np.ndarray | None = None) -> None:
        if self._evictions.keep(i, feeds, kept):
            self._bind_steps([i])

    def kept_tokens(self, layer: int) -> np.ndarray:
        """[Hkv, used] int64, a copy; see `Reader.kept_tokens`."""
        for window in self.windows:
            if layer in window.layers:
                return window.places[: self.layers[layer].kv_heads, : window.used].copy()
        return self.cache.token_index(layer)[:, : self.used].copy()

    @property
    def rewindable(self) -> int:
        """How many of the newest tokens can be taken back."""
        return min([len(self.since_cycle), *(window.rewindable for window in self.windows)])

    def rewind(self, count: int) -> None:
        """Take back the newest `count` tokens, at most `rewindable`.

        Attention that their queries paid (policy h2o) stays with the entries.
        """
        if count == 0:
            return
        left = len(self.since_cycle) - count
        self.since_cycle = self.since_cycle[:left]
        self.novelty.known = min(self.novelty.known, left)
        self.used, self.tokens = self.used - count, self.tokens - count
        for window in self.windows:
            window.used -= count
        self.protected = min(self.protected, self.used)
        self.beginning = self.beginning[: self.tokens]
        self.hidden = self.cycle_hidden if left == 0 else None
        self._logits = None
        self.recent.drop(count)
