"""The reading half of a session: text of any length into the cache, cycle after cycle."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.config import BEGINNING, CacheConfig
from lcc.errors import CacheError, ConfigError
from lcc.runtime.cycle import CYCLE, check_protected, next_step
from lcc.runtime.engines.base import Engine
from lcc.runtime.executor import Cycle, Executor
from lcc.runtime.feeding import Part, Progress, TokenQueue
from lcc.runtime.interrupts import uninterrupted
from lcc.runtime.resident import trim
from lcc.runtime.sentences import Sentences
from lcc.runtime.stats import Clock
from lcc.runtime.text.tokenizer import Tokenizer

Ids = Sequence[int] | np.ndarray
CYCLES_KEPT = 1000
PART = 4096  # ids given to the queue at once


class Reader:
    """A text being read, in a cache of fixed size. For one thread at a time.

    Whatever stops a call, be it Ctrl-C, a callback or a loop that was left, the session holds every
    token up to that point and can go on from there.

    manifest    of the artifact
    tokenizer   the model's own
    cycles      the last 1,000 cycles
    on_cycle    called after each cycle with its `Cycle`; `kept_tokens()` tells then what survived
    """

    def __init__(
        self,
        manifest: Manifest,
        cache: CacheConfig,
        tokenizer: Tokenizer,
        engine: Engine,
    ) -> None:
        """Use `lcc.runtime.load`."""
        self.manifest, self.tokenizer = manifest, tokenizer
        self.on_cycle: Callable[[Cycle], None] | None = None
        self.cycles: deque[Cycle] = deque(maxlen=CYCLES_KEPT)
        sentences = None
        if "sentence" in manifest.scalars:
            sentences = Sentences(tokenizer, manifest.model.vocab_size)
        self._executor = Executor(manifest, cache, engine, sentences=sentences)
        self._load_seconds = 0.0
        self._pending: list[int] = []  # generated, given out, not yet in the cache
        self._epoch = 0  # of the last call that moved the session
        self._catalyst: str | list[int] = manifest.policy.catalyst
        self._catalyst_ids: list[int] = []
        self._separator = tokenizer.encode("\n\n") if tokenizer.knows_text else []
        if manifest.queries == "catalyst":
            self.catalyst = manifest.policy.catalyst
        self.reset()

    def __del__(self) -> None:
        """Return what the programs and the cache took: an app may load the next model."""
        vars(self).clear()
        trim()

    def loaded_in(self, seconds: float) -> None:
        """Note how long loading took, for `stats`."""
        self._load_seconds = self._clock.load_seconds = seconds

    @property
    def tokens(self) -> int:
        """Tokens of the text so far, fed and generated."""
        return self._executor.tokens + len(self._pending)

    @property
    def used(self) -> int:
        """Entries per KV head in the cache."""
        return self._executor.used

    @property
    def capacity(self) -> int:
        """Slots per KV head."""
        return self._executor.limits.capacity

    @property
    def rewindable(self) -> int:
        """How many of the newest tokens `rewind` can take back: those since the last cycle."""
        return self._executor.rewindable + len(self._pending)

    @property
    def catalyst(self) -> str | list[int]:
        """What is run over the full cache to see how it attends: text or ids; may be set.

        The word "beginning" stands for the first tokens of the text that is being read.
        """
        return self._catalyst

    @catalyst.setter
    def catalyst(self, catalyst: str | Ids) -> None:
        self._catalyst_ids = self._encode_catalyst(catalyst)
        self._catalyst = catalyst if isinstance(catalyst, str) else [int(i) for i in catalyst]

    def _encode_catalyst(self, catalyst: str | Ids) -> list[int]:
        if self.manifest.queries != "catalyst":
            heads = ", for it goes by retaining heads" if self.manifest.heads else ""
            name = self.manifest.policy.name
            raise ConfigError(f'policy "{name}" reads no catalyst prompt{heads}')
        limit = self._executor.config.catalyst_size
        if isinstance(catalyst, str) and catalyst == BEGINNING:
            return []  # known when a cycle runs
        ids = [token for part, _ in self._parts(catalyst, "catalyst") for token in part]
        if len(ids) > limit:
            raise CacheError(
                f"the catalyst prompt has {len(ids)} tokens, catalyst_size is {limit}; shorten it, "
                "or compile with a larger --catalyst-size"
            )
        return ids

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens that begin one."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Ids) -> str:
        """The text of token ids, without special tokens.

        Raises:
            ConfigError: one that the model does not know.
        """
        size = self.manifest.model.vocab_size
        if unknown := [token for token in ids if not 0 <= token < size]:
            raise ConfigError(f"ids: {unknown[0]} is no token, wanted 0 to {size - 1}")
        return self.tokenizer.decode([int(token) for token in ids])

    def _parts(self, text: str | Ids, what: str, *, prefix: bool = False) -> Iterator[Part]:
        """The ids of a text, in parts; what is wrong with it is said at once."""
        if isinstance(text, str):
            if not text:
                raise ConfigError(f"{what} is empty; give it at least one token")
            return self._text_parts(text, what, prefix and self.tokens == 0)
        try:
            ids = np.asarray(text)
        except ValueError:  # lists of several lengths
            ids = np.asarray(None)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ConfigError(f"{what} is {type(text).__name__}, wanted str or a list of token ids")
        if not ids.size:
            raise ConfigError(f"{what} is empty; give it at least one token")
        size = self.manifest.model.vocab_size
        for place in np.flatnonzero((ids < 0) | (ids >= size)):
            raise ConfigError(f"{what}: token {place} is {ids[place]}, wanted 0 to {size - 1}")
        starts = range(0, len(ids), PART)
        return ((ids[i : i + PART].tolist(), min((i + PART) / len(ids), 1.0)) for i in starts)

    def _text_parts(self, text: str, what: str, prefix: bool) -> Iterator[Part]:
        if prefix:
            yield self.tokenizer.prefix, 0.0
        size = self.manifest.model.vocab_size
        for ids, characters in self.tokenizer.parts(text):
            if (largest := max(ids, default=0)) >= size:
                token = self.tokenizer.decode([largest], special=True)
                raise ConfigError(
                    f"{what}: {token!r} is token {largest}, the model knows 0 to {size - 1}; "
                    "compile it with its own tokenizer, or leave that out of the text"
                )
            yield ids, characters / len(text)

    def feed(
        self,
        text: str | Ids,
        *,
        protect: bool = False,
        catalyst: str | Ids | None = None,
        progress: Callable[[Progress], object] | None = None,
        stop: Callable[[], bool] | None = None,
        prefix: bool = True,
        last: bool = False,
    ) -> int:
        """Read a text of any length; returns how many of its tokens were read.

        text        str, or token ids, which are read as they are
        protect     never evict anything read up to the end of this text
        catalyst    for the cycles of this call only
        progress    called after every step; returning False stops
        stop        asked before every step; returning True stops
        prefix      begin an empty session with the special tokens that the tokenizer puts there
        last        the text ends here, a question follows: with a policy that has a `tail_size`,
                    the last cycle of this call then keeps no other entries for being new

        Raises:
            ConfigError: the text is empty, or neither text nor ids of the vocabulary.
            CacheError: more is protected than a cycle can keep, or the cache is full and policy
                "none" never evicts; or a callback has moved the session, which keeps what it holds.
        """
        self._executor.check()
        parts = self._parts(text, "text", prefix=prefix)
        cycle_ids = self._catalyst_ids if catalyst is None else self._encode_catalyst(catalyst)
        queue = TokenQueue(self._protected(parts) if protect else parts, self._pending)
        self._epoch += 1
        epoch, held = self._epoch, self._executor.tokens
        before, cycles, begin = self.tokens, self._clock.cycles, time.perf_counter()
        try:
            while ids := queue.peek(self._executor.limits.chunk_size):
                stopped = stop is not None and stop()
                self._check_unmoved("feed", epoch, held)
                if stopped:
                    return self.tokens - before
                count = self._advance(ids, cycle_ids, queue if last else None)
                held += count
                self._check_unmoved("feed", epoch, held)
                queue.take(count)
                if progress is not None:
                    now = Progress(
                        tokens=self.tokens - before,
                        fraction=queue.fraction,
                        used=self.used,
                        cycles=self._clock.cycles - cycles,
                        seconds=time.perf_counter() - begin,
                    )
                    stopped = progress(now) is False
                    self._check_unmoved("feed", epoch, held)
                    if stopped:
                        return self.tokens - before
        finally:
            if self._epoch == epoch:
                self._clock.prefill_tokens += self.tokens - before
                self._clock.prefill_seconds += time.perf_counter() - begin
        if protect:
            self._executor.protected = self.used
        return self.tokens - before

    def _check_unmoved(self, call: str, epoch: int, held: int | None = None) -> None:
        """Refuse to go on where another call has moved the session, in a callback or between."""
        if self._epoch != epoch or held not in (None, self._executor.tokens):
            raise CacheError(f"another call has moved the session; begin a new {call}()")

    def _protected(self, parts: Iterator[Part]) -> Iterator[Part]:
        """All parts as one, or an error before the first of its tokens is read."""
        executor, ids = self._executor, list[int]()
        for part, _ in parts:
            ids += part
            if executor.limits.evicts:
                size = self.used + len(self._pending) + len(ids)
                check_protected(size, executor.config.recent_size, executor.config.budget)
        return iter([(ids, 1.0)])

    def _advance(self, ids: list[int], catalyst: list[int], queue: TokenQueue | None = None) -> int:
        """One step or one cycle: how many of the ids were read, 0 after a cycle.

        The ids begin with the pending ones; `queue` is the rest of the text, where its end is known
        to be the end.
        """
        executor = self._executor
        count = next_step(len(ids), executor.used, executor.limits)
        cycle = None
        with uninterrupted():
            if count == CYCLE:
                cycle = self._cycle(catalyst, self._left(queue))
            else:
                executor.read(ids[:count])
                self._pending = self._pending[count:]
        if cycle is not None and self.on_cycle is not None:
            self.on_cycle(cycle)
        return count

    def _left(self, queue: TokenQueue | None) -> int | None:
        """Tokens still to read, if they fit after one more cycle; None = more, or not known."""
        limits = self._executor.limits
        if queue is None or self.manifest.policy.tail_size is None:
            return None
        room = limits.usable - limits.budget
        left = len(queue.peek(room + 1))
        return left if left <= room else None

    def _cycle(self, catalyst: list[int], left: int | None = None) -> Cycle:
        if not catalyst and self.manifest.queries == "catalyst":
            limit = self._executor.config.catalyst_size
            catalyst = [*self._separator, *self._executor.beginning][:limit]
        cycle = self._executor.evict(catalyst, left)
        self.cycles.append(cycle)
        self._clock.cycles += 1
        self._clock.cycle_seconds += cycle.seconds
        return cycle

    def next_logits(self) -> np.ndarray:
        """[V] float32 for the token after the last one, fed or generated; a copy."""
        while self._pending:
            self._advance(self._pending, self._catalyst_ids)
        return self._executor.logits().copy()

    def surprise(self, ids: Ids) -> np.ndarray:
        """Read token ids as `feed` does, and say how surprising each was to the model.

        returns     [n] float32, -log probability in nats of each token given what the cache held;
                    the exponential of its mean is the perplexity. The first token of a text, which
                    nothing predicts, has 1e30
        """
        heard = self._executor.surprise = []
        try:
            self.feed(ids, prefix=False)
        finally:
            self._executor.surprise = None
        return np.concatenate(heard)[-len(ids) :]

    def distill(self) -> None:
        """Run a cycle now, where there is something to evict: e.g. before a save."""
        self._epoch += 1
        while self._pending:
            self._advance(self._pending, self._catalyst_ids)
        if self._executor.limits.evicts and self.used > self._executor.config.budget:
            with uninterrupted():
                cycle = self._cycle(self._catalyst_ids)
            if self.on_cycle is not None:
                self.on_cycle(cycle)

    def kept_tokens(self, layer: int) -> np.ndarray:
        """[Hkv, used] int64: the place in the text of every entry of a layer, ascending; a copy.

        Raises:
            ConfigError: the model has no such layer.
        """
        if layer not in range(count := len(self.manifest.model.layers)):
            raise ConfigError(f"layer is {layer}, the model has {count}; wanted 0 to {count - 1}")
        return self._executor.kept_tokens(layer)

    def reset(self) -> None:
        """Forget everything that was read; buffers, catalyst and hooks stay."""
        self._epoch += 1
        self._executor.reset()
        self._pending = []
        self.cycles.clear()
        self._clock = Clock(load_seconds=self._load_seconds)

    def rewind(self, count: int) -> None:
        """Take back the newest `count` tokens, fed or generated.

        Raises:
            CacheError: some of them were read before the last cycle; says how far one can go.
        """
        self._executor.check()
        if not 0 <= count <= self.rewindable:
            raise CacheError(
                f"rewind({count}): {self.rewindable} tokens were read since the last cycle, only "
                "they can be taken back; save() before feeding more, and load() to go further back"
            )
        self._epoch += 1
        pending = min(count, len(self._pending))
        with uninterrupted():
            self._pending = self._pending[: len(self._pending) - pending]
            self._executor.rewind(count - pending)
