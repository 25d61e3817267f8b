"""Reads token ids into the buffers of one session, and runs cycles; knows no text.

A step writes behind `used`, and the counters that make its entries part of the cache are set last.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.artifact.schedule import Block
from lcc.artifact.session_sizes import LOWERED, lowered_constants
from lcc.config import BEGINNING_TOKENS, CacheConfig
from lcc.errors import ArtifactError, CacheError, ConfigError
from lcc.ir.roles import Role
from lcc.runtime.archive.rows import ArchiveRows
from lcc.runtime.core.buffers import Buffers
from lcc.runtime.core.interpreter import IDS, Interpreter
from lcc.runtime.core.plan import Limits
from lcc.runtime.core.snapshots import Snapshots
from lcc.runtime.engines.base import Engine


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


@dataclass(frozen=True)
class Recall:
    """What a question brought back.

    rows        of the archive, all of which were ranked
    returned    entries per KV head that are in the cache now and were not before
    used        entries now
    seconds     it took
    """

    rows: int
    returned: int
    used: int
    seconds: float


class Executor:
    """The buffers and counters of one session, and the programs that work on them.

    limits      the numbers that decide when a cycle runs
    numbers     constants and counters by name
    buffers     every tensor that lives longer than a call
    cache_bytes     of all buffers
    beginning   ids of the first tokens of the text, at most 32
    again       ids that a rewind has left to be read again, with what comes next: the last one,
                whose hidden state is not known, or those behind the nearest copy of the states of
                recurrent layers; `used` and `tokens` count them, the counters do not
    broken      a cycle failed half-way: only `reset` helps
    """

    def __init__(self, manifest: Manifest, sizes: CacheConfig, engine: Engine) -> None:
        """Allocate the buffers.

        sizes       the manifest's, or lower ones

        Raises:
            CacheError: a size is larger than compiled, or lower where a program has it fixed.
        """
        self.manifest, self._schedule, self._groups = manifest, manifest.schedule, manifest.groups
        self.sizes, self.numbers = sizes, lowered_constants(manifest, sizes) | manifest.counters
        limits = {name: self.numbers[name] for name in (*LOWERED, "reserved")}
        self.limits = Limits(**limits, evicts=bool(self._schedule.cycle))
        self.buffers = Buffers(manifest.buffers, self.numbers, engine)
        self.cache_bytes = sum(array.nbytes for array in self.buffers.arrays.values())
        self._interpreter = Interpreter(manifest, self.numbers, self.buffers, engine)
        self._run = self._interpreter.run
        marks = {mark for _, mark in self._schedule.marks}
        states = [spec.name for spec in manifest.buffers if spec.role == Role.STATE]
        self.snapshots = Snapshots(self.buffers, [name for name in states if name not in marks])
        # Entries from which on a cycle that is due reads tokens again; 0 = it never does.
        self._due_from = self.limits.usable - self.numbers["newest"] if marks else 0
        self._newest_from = self._due_from
        self.archive: ArchiveRows | None = None
        self.reads_catalyst = "catalyst" in {b.over.ids for b in self._schedule.cycle if b.over}
        self.catalyst_size = sizes.catalyst_size
        self.reset()

    @property
    def counters(self) -> dict[str, int]:
        """The counters of the manifest, as they are now; a copy."""
        return {name: self.numbers[name] for name in self.manifest.counters}

    @property
    def used(self) -> int:
        """Entries per KV head of the full layers."""
        return self.numbers["used"] + len(self.again)

    @property
    def tokens(self) -> int:
        """Tokens of the text read so far: the position of the next one."""
        return self.numbers["tokens"] + len(self.again)

    @property
    def protected(self) -> int:
        """Leading slots that no cycle evicts."""
        return self.numbers["protected"]

    @protected.setter
    def protected(self, size: int) -> None:
        self.numbers["protected"] = size

    def check_archive(self) -> None:
        """Raise ConfigError where artifacts of this kind have no archive."""
        if not self._schedule.recall:
            policy, target = self.manifest.policy.name, self.manifest.target
            raise ConfigError(
                f"this artifact has no archive: policy {policy} for {target}; wanted one compiled "
                "with --policy consensus for onnxruntime:cpu or tvm:cpu, of a model whose full "
                "layers have no windows and no ALiBi"
            )

    def attach(self, archive: ArchiveRows) -> None:
        """Let cycles write what they evict to an archive."""
        self.archive = self._interpreter.archive = archive
        self.numbers["archiving"] = 1

    def detach(self) -> None:
        """Close the archive; what is evicted from now on is gone."""
        if self.archive is not None:
            self.archive.close()
            self.archive = self._interpreter.archive = None
            self.numbers["archiving"] = 0

    @property
    def since_cycle(self) -> list[int]:
        """Ids of the tokens read since the last cycle."""
        ids = self.buffers.rows(IDS, self.numbers["kept"], self.numbers["used"])
        return [*ids.tolist(), *self.again]

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows that a saved state holds."""
        saved = self.buffers.saved(self.numbers)
        return sum(int(np.prod(shape)) * np.dtype(spec.dtype).itemsize for spec, _, shape in saved)

    def reset(self) -> None:
        """Forget everything that was read; an archive of it is emptied."""
        if self.archive is not None and self.archive.known:
            self.archive.clear()
        self.clear()

    def clear(self) -> None:
        """Forget everything that was read; an archive stays as it is."""
        self.numbers.update(self.manifest.counters)
        if self.archive is not None:
            self.numbers["archiving"] = 1
        self.buffers.clear()
        self.beginning: list[int] = []
        self.again: list[int] = []
        self.broken = self._has_logits = False
        self.snapshots.forget()
        self.begin_turn()

    def check(self) -> None:
        """Refuse to go on with buffers that a failure has left half changed."""
        if self.broken:
            raise CacheError("a cycle failed half-way and the cache is lost; reset() the session")

    def read(self, ids: Sequence[int]) -> None:
        """Read tokens into the slots after `used`; raises CacheError where they do not fit."""
        list(self._steps(ids, self._schedule.read))

    def _steps(self, ids: Sequence[int], blocks: Sequence[Block]) -> Iterator[int]:
        """Read `again` and ids by a list; yields how many after each step."""
        self.check()
        ids, numbers = [*self.again, *ids], self.numbers
        if len(ids) > (room := self.limits.usable - numbers["used"]):
            raise CacheError(f"{len(ids)} tokens to read, {room} slots are free; run a cycle first")
        while ids:
            aligns = (numbers[group.align] for group in self._groups if group.align)
            rest = [align - numbers["tokens"] % align for align in aligns]
            rest += [mark] if (mark := self._newest_from - numbers["used"]) > 0 else []
            count = min([len(ids), self.limits.chunk_size, *rest])
            self._make_room(count)
            if self.snapshots:
                self.snapshots.pass_by(numbers["used"], self._last_hidden())
            new = ids[max(0, len(self.beginning) - numbers["tokens"]) : count]
            self._change(blocks, ids[:count])
            self.beginning += new[: BEGINNING_TOKENS - len(self.beginning)]
            ids, self.again = ids[count:], self.again[count:]
            if numbers["used"] == self._newest_from:
                self._interpreter.mark()
            yield count

    def _last_hidden(self) -> np.ndarray | None:
        """[h] the hidden state after the last token read; None where it is not known."""
        row = self.numbers["state"]
        return None if row < 0 else self.buffers.rows("hidden", row, row + 1)[0]

    def begin_turn(self) -> None:
        """Something new begins here: one may want to go back to this place."""
        if not self.again:  # else there is a copy of this place already
            self.snapshots.begin_turn(self.numbers["used"], self._last_hidden())

    def _make_room(self, count: int) -> None:
        """Compact the groups that lack slots for `count` more entries, or whose chunk has ended."""
        numbers = self.numbers
        for group in self._groups[1:]:
            slots = int(numbers.get(str(group.slots), group.slots))
            due = group.align and numbers["tokens"] % numbers[group.align] == 0
            if numbers[group.used] and (due or numbers[group.used] + count > slots):
                self._change(self._schedule.compact[group.name])

    def _change(self, blocks: Sequence[Block], ids: Sequence[int] = ()) -> None:
        """Run a list that changes the cache.

        Where it fails, the counters are as before; what lies behind them is lost but after a step,
        which only adds to it.
        """
        before, self._has_logits = dict(self.numbers), False
        schedule = self._schedule
        adds = blocks in (schedule.read, schedule.nll, schedule.flush) and not self.snapshots
        self.broken = not adds
        try:
            self._run(blocks, ids)
        except BaseException:
            self.numbers.update(before)
            raise
        self.broken = False

    def logits(self) -> np.ndarray:
        """[V] float32 for the token after the last one read; the same array until the next step."""
        self.read(())
        if self.numbers["state"] == self.numbers["no_state"]:
            raise CacheError("nothing was read yet, nothing to go on from; feed a text")
        if not self._has_logits:
            self._run(self._schedule.logits)
            self._has_logits = True
        return self.buffers.rows("logits", 0, 1, 0)[0]

    def each_logits(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """Read ids as `read` does; the logits [V] after each, the same array every time."""
        self.read(())  # what a rewind has left to be read again: then each row is one of the ids
        for count in self._steps(ids, self._schedule.read):
            last = self.numbers["state"]
            try:  # the states of this step's tokens lie in the rows up to `last`
                for ago in range(count - 1, -1, -1):
                    self.numbers["state"], self._has_logits = last - ago, False
                    yield self.logits()
            finally:
                self.numbers["state"], self._has_logits = last, False

    def nll(self, ids: Sequence[int]) -> np.ndarray:
        """Read ids as `read` does; how improbable each was.

        returns     [n] float32, -log probability in nats of each token given what the cache held;
                    1e30 for the first token of a text
        """
        self.read(())  # what a rewind has left to be read again
        before, found = self.tokens, [np.zeros(0, np.float32)]
        for count in self._steps(ids, self._schedule.nll):
            first = self.numbers["used"] - count if self._schedule.log else 0
            found.append(self.buffers.rows("nll", first, first + count).copy())
        result = np.concatenate(found)
        result[: not before] = 1e30
        return result

    def evict(self, catalyst: Sequence[int] = (), left: int = -1) -> Cycle:
        """One cycle: keep `budget` entries of every full layer; needs used > budget.

        catalyst    ids run behind the full cache where the schedule asks for them; not kept
        left        tokens still to be read of a text whose last cycle this is; -1 = it is not
        """
        self.read(())
        begin, before, limits = time.perf_counter(), self.used, self.limits
        if not limits.evicts or before <= limits.budget:
            raise CacheError(f"nothing to evict: {before} entries, budget {limits.budget}")
        if (extra := len(catalyst) if self.reads_catalyst else 0) > limits.reserved:
            raise CacheError(f"catalyst: {extra} tokens, {limits.reserved} slots for them")
        self._make_room(extra)
        self.numbers["left"] = left
        if self._schedule.marks:
            self._mark_newest()
        self._change(self._schedule.cycle, catalyst)
        if self.numbers["used"] > limits.budget:  # reading would ask for another one for ever
            self.broken = True
            raise ArtifactError(
                f"a cycle left {self.numbers['used']} entries, wanted budget ({limits.budget}) at "
                "most; the schedule is wrong"
            )
        self._after_cycle()
        return Cycle(self.tokens, before, self.used, time.perf_counter() - begin)

    def _mark_newest(self) -> None:
        """Let the marks be those of the newest tokens, where a cycle comes before it is due."""
        numbers, read = self.numbers, self._schedule.read
        wanted = max(numbers["kept"], numbers["used"] - numbers["newest"])
        ids = self.since_cycle[wanted - numbers["kept"] :]
        if numbers["marked"] != wanted and len(ids) <= self.rewindable:
            try:
                with self._interpreter.states_kept():
                    self.rewind(len(ids))
                    self._newest_from = wanted
                    if numbers["used"] == wanted:
                        self._interpreter.mark()
                    list(self._steps(ids, read))
            finally:
                self._newest_from = self._due_from
        if numbers["marked"] >= numbers["used"]:
            raise CacheError("nothing was read since the state was loaded; feed before a cycle")

    def _after_cycle(self) -> None:
        """Places of the cache are others now."""
        self.snapshots.forget()
        self.begin_turn()
        if self._schedule.marks:
            self._interpreter.mark()

    def recall(self, question: Sequence[int]) -> Recall | None:
        """Fill the cache anew with what a question asks of the archive and of the cache itself.

        question    ids; of a longer one the last `catalyst_size`

        returns     None where nothing was evicted yet: the cache has everything
        """
        self.read(())
        if self.archive is None or not question or self.tokens <= self.used:
            return None
        begin, before = time.perf_counter(), self.kept_tokens(self._groups[0].layers[0])[0]
        counters = self.counters
        self._change(self._schedule.flush)
        if self.archive.stopped or self.numbers["archived"] <= self.limits.budget:
            self.numbers.update(counters)  # as if nothing had been appended: the cache stays
            return None  # what is not in the archive cannot come back from there
        ids = question[-self.sizes.catalyst_size :]
        self._make_room(len(ids))
        try:
            self._change(self._schedule.recall, ids)
        finally:
            self.buffers.shrink()
        self._after_cycle()
        after = self.kept_tokens(self._groups[0].layers[0])[0]
        back = int((~np.isin(after, before)).sum())
        return Recall(self.numbers["archived"], back, self.used, time.perf_counter() - begin)

    @property
    def rewindable(self) -> int:
        """How many of the newest tokens can be taken back.

        Those since the last cycle; of a model with recurrent layers, those since the last text,
        prompt or message began. Where a group was compacted since, one token less than what it has
        read, if the last one that stays has to be read again.
        """
        if self.snapshots:
            return self._rewindable_states()
        rooms = [self.numbers[group.used] - self.numbers[group.kept] for group in self._groups]
        least = min(rooms) + len(self.again)
        return least if min(rooms) == rooms[0] else max(0, least - (not self._schedule.log))

    def _rewindable_states(self) -> int:
        """What is behind the oldest copy of the states, which all groups must still hold."""
        back = self.numbers["used"] - self.snapshots.oldest
        rooms = [self.numbers[group.used] - self.numbers[group.kept] for group in self._groups]
        return self.used - self.snapshots.oldest if back <= min(rooms) else len(self.again)

    def rewind(self, count: int) -> None:
        """Take back the newest `count` tokens, at most `rewindable`.

        Attention that their queries have paid stays with the entries; tokens that must be read
        again, in a model with recurrent layers, pay it again.
        """
        self.check()
        if not 0 <= count <= self.rewindable:
            raise CacheError(f"rewind({count}): wanted 0 to {self.rewindable} tokens")
        if count == 0:
            return
        numbers, log, total = self.numbers, self._schedule.log, self.tokens - count
        since = self.since_cycle[: len(self.since_cycle) - count]
        hidden = None
        if self.snapshots:
            place, hidden = self.snapshots.back(self.used - count)
            self.again = since[place - numbers["kept"] :]
        else:
            self.again = [] if log or not total else since[-1:]
        lower = numbers["tokens"] - total + len(self.again)
        for name in {name for block in self._schedule.read for name in block.add}:
            numbers[name] -= lower
        state = "no_state" if self.again or not total else "used" if log else "zero"
        numbers["state"] = numbers[state]
        if hidden is not None and state == "zero":
            self.buffers.write_rows("hidden", 0, hidden[None])
        numbers["known"] = min(numbers["known"], numbers["used"])
        numbers["protected"] = min(numbers["protected"], self.used)
        self.beginning, self._has_logits = self.beginning[:total], False

    def kept_tokens(self, layer: int) -> np.ndarray:
        """[Hkv, used] int64: the token position of every entry of a layer, ascending; a copy."""
        group = next(group for group in self._groups if layer in group.layers)
        kept, end = self.numbers[group.kept], self.numbers[group.used] + len(self.again)
        if kept > end:
            raise ArtifactError(
                f"schedule: {group.kept} is {kept}, more than the {end} entries of {group.used}"
            )
        tokens = np.arange(end, dtype=np.int64) - end + self.tokens
        tokens = np.tile(tokens, (self.manifest.model.layers[layer].kv_heads, 1))
        for spec in [spec for spec in self.manifest.buffers if spec.role == Role.TOKEN_POSITION]:
            here = spec.layer == layer or (spec.layer is None and spec.group == group.name)
            if here and spec.saved is not None:
                rows = np.moveaxis(self.buffers.rows(spec.name, 0, kept), spec.axis, -1)
                tokens[:, :kept] = rows[: len(tokens)]
        return tokens
