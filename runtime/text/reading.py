"""Token ids into the executor: steps and cycles, as many as a text of any length takes."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lcc.errors import CacheError
from lcc.runtime.core.executor import Cycle, Executor, Recall
from lcc.runtime.core.plan import CYCLE, check_protected, next_step
from lcc.runtime.core.snapshots import GAP
from lcc.runtime.interrupts import uninterrupted
from lcc.runtime.resident import trim
from lcc.runtime.stats import Clock
from lcc.runtime.text.catalyst import Catalyst
from lcc.runtime.text.feeding import Part, Progress, TokenQueue
from lcc.runtime.text.seam import CONTEXT, Passage

CYCLES_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """How one call reads.

    catalyst    ids for the cycles of this call, from `Catalyst.encode`; None = the session's own
    protect     no cycle evicts anything read up to the end of this text
    last        the text ends with the last id
    progress    called after every step; returning False stops
    stop        called before every step; returning True stops
    nll         where it is a list, each step adds its tokens' negative log likelihoods, [n] float32
    asks        what is read asks for something: what it asks for comes back from the archive first
    """

    catalyst: list[int] | None = None
    protect: bool = False
    last: bool = False
    progress: Callable[[Progress], object] | None = None
    stop: Callable[[], bool] | None = None
    nll: list[np.ndarray] | None = None
    asks: bool = False


class Reader:
    """The text that an executor holds, and what is still on its way there.

    pending     ids that were generated and given out, and are not read yet
    epoch       number of the last call that moved the session
    clock       tokens, cycles and seconds so far
    cycles      the last 1,000 cycles
    on_cycle    called after each cycle
    passage     the text that was read last, where it was read as text
    recall      what the last question brought back; None = none did
    """

    def __init__(
        self, executor: Executor, catalyst: Catalyst, recent_size: int, load_seconds: float
    ) -> None:
        """Begin with nothing read; `recent_size`: newest entries that every cycle keeps."""
        self.executor, self._catalyst = executor, catalyst
        self._recent_size, self._load_seconds = recent_size, load_seconds
        self.pending: list[int] = []
        self.epoch = 0
        self.clock = Clock(load_seconds=load_seconds)
        self.cycles: deque[Cycle] = deque(maxlen=CYCLES_KEPT)
        self.on_cycle: Callable[[Cycle], object] | None = None
        self.passage = Passage("", 0)
        self.recall: Recall | None = None

    def __del__(self) -> None:
        """Return to the system what the buffers took: an app may load the next model."""
        vars(self).clear()
        trim()

    @property
    def tokens(self) -> int:
        """Tokens of the text so far, fed and generated."""
        return self.executor.tokens + len(self.pending)

    @property
    def rewindable(self) -> int:
        """How many of the newest tokens `rewind` can take back."""
        return self.executor.rewindable + len(self.pending)

    @property
    def newest(self) -> list[int]:
        """Ids of the tokens since the last cycle, pending ones included."""
        return [*self.executor.since_cycle, *self.pending]

    def feed(self, parts: Iterator[Part], how: Feeding, *, drop: int = 0, text: str = "") -> int:
        """Read the pending ids, then those of the parts; returns how many of the parts were read.

        Args:
            parts: Ids.
            how: See `Feeding`.
            drop: Newest tokens to take back first; no more than `rewindable`.
            text: What the session holds when all of it was read, as far as that is known.

        Raises:
            CacheError: more is protected than a cycle can keep; the cache is full and nothing can
                be evicted; or a callback has moved the session, which keeps what it holds.
        """
        self.executor.check()
        if self.executor.archive is not None and self.tokens == drop:
            self.executor.archive.check_new()
        self._take_back(drop)
        self.executor.begin_turn()
        begun = self.tokens
        if how.asks:
            parts = self._recalled(parts)
        queue = TokenQueue(self._protected(parts) if how.protect else parts, self.pending)
        self.epoch += 1
        epoch, before, cycles = self.epoch, self.tokens, self.clock.cycles
        begin = time.perf_counter()

        def told() -> Progress:
            return Progress(
                tokens=self.tokens - before,
                fraction=queue.fraction,
                used=self.executor.used,
                cycles=self.clock.cycles - cycles,
                seconds=time.perf_counter() - begin,
            )

        try:
            finished = self._steps(queue, how, epoch, told)
        finally:
            if self.epoch == epoch:
                self.clock.prefill_tokens += self.tokens - before
                self.clock.prefill_seconds += time.perf_counter() - begin
        if finished and how.protect:
            self.executor.protected = self.executor.used
        self.passage = Passage(text[-CONTEXT:], self.tokens if finished else -1)
        return self.tokens - begun

    def _recalled(self, parts: Iterator[Part]) -> Iterator[Part]:
        """What is still to be read, when what the parts ask for is in the cache.

        Of parts that do not fit behind a recall the beginning is read first: it is a text with a
        question at its end, and what is evicted of it can be called back.
        """
        executor = self.executor
        if executor.archive is None:
            return parts
        question = [token for ids, _ in parts for token in ids]
        room = executor.limits.usable - executor.limits.budget
        if text := question[:-room]:
            self.feed(iter([(text, 1.0)]), Feeding())
        self.read_pending()
        with uninterrupted():
            recall = executor.recall(question[-room:])
        if recall is not None:
            self.recall = recall
            self.clock.recalls += 1
            self.clock.recall_seconds += recall.seconds
        return iter([(question[-room:], 1.0)])

    def _steps(
        self, queue: TokenQueue, how: Feeding, epoch: int, told: Callable[[], Progress]
    ) -> bool:
        """Read to the end of the queue; returns False where a callback stopped it."""
        held = self.executor.tokens
        while ids := queue.peek(self.executor.limits.chunk_size):
            stopped = how.stop is not None and how.stop()
            self.check_unmoved("feed", epoch, held)
            if stopped:
                return False
            count = self._advance(ids, how, queue if how.last else None)
            held += count
            self.check_unmoved("feed", epoch, held)
            queue.take(count)
            if how.progress is not None:
                stopped = how.progress(told()) is False
                self.check_unmoved("feed", epoch, held)
                if stopped:
                    return False
        return True

    def check_unmoved(self, call: str, epoch: int, held: int | None = None) -> None:
        """Refuse to go on where another call has moved the session, in a callback or between.

        Args:
            call: Name of the call that would go on.
            epoch: Its own number.
            held: Tokens that the executor must hold; None = any number.
        """
        if self.epoch != epoch or held not in (None, self.executor.tokens):
            raise CacheError(f"another call has moved the session; begin a new {call}()")

    def _protected(self, parts: Iterator[Part]) -> Iterator[Part]:
        """All parts as one, or an error before the first of its tokens is read."""
        limits, ids = self.executor.limits, list[int]()
        for part, _ in parts:
            ids += part
            if limits.evicts:
                size = self.executor.used + len(self.pending) + len(ids)
                check_protected(size, self._recent_size, limits.budget)
        return iter([(ids, 1.0)])

    def _advance(self, ids: list[int], how: Feeding, queue: TokenQueue | None = None) -> int:
        """One step or one cycle; returns how many of the ids were read, 0 after a cycle.

        Args:
            ids: The next ones, which begin with the pending ones.
            how: See `Feeding`.
            queue: The rest of the text, where its end is known to be the end; else None.
        """
        executor = self.executor
        count = next_step(len(ids), executor.used, executor.limits)
        if count == CYCLE:
            self.cycle(how.catalyst, self._left(queue))
            return 0
        if executor.snapshots and count == len(ids):  # the end of it may be taken back
            count -= GAP if count > GAP else 0
        with uninterrupted():
            if how.nll is None:
                executor.read(ids[:count])
            else:
                how.nll.append(executor.nll(ids[:count]))
            self.pending = self.pending[count:]
        return count

    def _left(self, queue: TokenQueue | None) -> int:
        """Tokens still to be read, where they fit after one more cycle; else -1."""
        if queue is None:
            return -1
        room = self.executor.limits.usable - self.executor.limits.budget
        left = len(queue.peek(room + 1))
        return left if left <= room else -1

    def cycle(self, catalyst: list[int] | None = None, left: int = -1) -> None:
        """Run one cycle and report it.

        Args:
            catalyst: Ids from `Catalyst.encode`; None = the session's own.
            left: As `Executor.evict` takes it.
        """
        with uninterrupted():
            cycle = self.executor.evict(self._catalyst.of_cycle(catalyst), left)
            self.cycles.append(cycle)
            self.clock.cycles += 1
            self.clock.cycle_seconds += cycle.seconds
        if self.on_cycle is not None:
            self.on_cycle(cycle)

    def distill(self) -> None:
        """Run a cycle now, where there is something to evict."""
        self.epoch += 1
        self.read_pending()
        limits = self.executor.limits
        if limits.evicts and self.executor.used > limits.budget:
            self.cycle()

    def read_pending(self) -> None:
        """Bring the generated ids into the cache, with a cycle first where there is no room."""
        while self.pending:
            self._advance(self.pending, Feeding())

    def rewind(self, count: int) -> None:
        """Take back the newest `count` tokens, pending ones first.

        Raises:
            CacheError: some of them were read before the last cycle; says how far one can go.
        """
        self.executor.check()
        if not 0 <= count <= self.rewindable:
            since = "the last text began" if self.executor.snapshots else "the last cycle"
            raise CacheError(
                f"rewind({count}): {self.rewindable} tokens were read since {since}, only they can "
                "be taken back; save() before feeding more, and load() to go further back"
            )
        self.epoch += 1
        self._take_back(count)

    def _take_back(self, count: int) -> None:
        pending = min(count, len(self.pending))
        with uninterrupted():
            self.pending = self.pending[: len(self.pending) - pending]
            self.executor.rewind(count - pending)

    def reset(self) -> None:
        """Forget everything that was read."""
        self.epoch += 1
        self.executor.reset()
        self.pending, self.passage, self.recall = [], Passage("", 0), None
        self.cycles.clear()
        self.clock = Clock(load_seconds=self._load_seconds)
