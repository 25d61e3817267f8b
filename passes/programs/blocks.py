"""The blocks of a schedule: what is run, with what bound to what."""

import msgspec

from lcc.artifact.schedule import Block, Counter, Group, Over, Rows, Run
from lcc.config import CacheConfig
from lcc.ir.plan import Full
from lcc.ir.program import DECODE, HEAD, PREFILL_CHUNK, Program
from lcc.ir.roles import Role
from lcc.passes.policies import EvictionPolicy
from lcc.passes.policies.entry_scores import NLL, SENTENCE
from lcc.passes.programs.archive_blocks import ArchiveBlocks
from lcc.passes.programs.buffers import keeps_log, spare_name
from lcc.passes.programs.cycle import CycleLayer, sparse_kind_of
from lcc.passes.programs.evict import CACHE, COUNTERS, stored_name, stored_scores

# Inputs of one integer: what a program calls it -> the counter that says it.
_INTS = {
    "used": "used",
    "kept": "kept",
    "tokens_read": "tokens",
    "protected": "protected",
    "left": "left",
    "layer": "layer",
    "seed": "seed",
    "start": "start",
    "archived_to": "archived_to",
}


class Blocks:
    """The lists of blocks of one artifact."""

    def __init__(
        self,
        programs: list[Program],
        layers: list[CycleLayer],
        cache: CacheConfig,
        policy: EvictionPolicy,
        *,
        chooses_rows: bool = True,
    ) -> None:
        """`chooses_rows`: some target's steps are told whose queries to hand out."""
        self.chooses_rows = chooses_rows
        self.programs = {name: program for program in programs for name in program.names}
        self.layers, self.cache, self.policy = layers, cache, policy
        self.kinds = sparse_kind_of(layers)
        self.log = keeps_log(layers, policy)
        self.evicting = [i for i, layer in enumerate(layers) if layer.evict is not None]
        self.scored = [i for i, layer in enumerate(layers) if layer.score is not None]
        self.archive = ArchiveBlocks(self.programs, layers, policy)
        self.asked = sorted({*self.scored, *self.archive.voting})

    def _fills(self) -> tuple[Counter, ...]:
        """Counters that every token of a step adds to."""
        more = (f"used_{number}" for number in range(1, len(self.kinds) + 1))
        return ("used", "tokens", *(("next",) if self.log else ()), *more)

    def read(self) -> Block:
        """Read a chunk, or one token; policies that go by all queries score at once."""
        runs = [self._step(queries=self.policy.queries == "all", hidden=True)]
        if self.policy.queries == "all":
            runs += self._score(rows="n", known="start")
        return Block(
            over=Over(ids="text", most="chunk_size"),
            do=tuple(runs),
            add=self._fills(),
            set={"state": "used" if self.log else "n"},
        )

    def nll(self) -> tuple[Block, ...]:
        """Read as `read` does; then the negative log likelihoods of the tokens that were read.

        Where there is no log, the state before the first of them is moved to row 0, for the step
        writes over it; the states of a step follow from row 1 on.
        """
        if self.log:
            return (self.read(), self._nll("known", "known", end="used"))
        first = Block(when=("no_state", "state"), after=(("hidden", "state", "zero"),))
        begin = Block(set={"tick": "zero", "row": "used"})
        return (first, begin, self.read(), self._nll("tick", "row", end="state"))

    def _nll(self, state: Counter, token: Counter, *, end: Counter) -> Block:
        """Of the tokens in rows `token` on, by the states in rows `state` .. `end`-1."""
        bind: dict[str, str | Rows] = {
            "hidden": ("hidden", state, "n"),
            "next_tokens": ("ids", token, "n"),
            "nll": ("nll", state, "n"),
        }
        return Block(
            over=Over(rows=(state, end), most="head_rows"),
            do=(Run(run=HEAD, bind=bind),),
            add=tuple(dict.fromkeys((state, token))),
        )

    def _step(self, *, queries: bool, hidden: bool) -> Run:
        """The step.

        queries     hand out those of the scored layers: behind those asked for before, or, where
                    every step is scored at once, from the first row on
        hidden      keep the states
        """
        program, first = self.programs[PREFILL_CHUNK], "zero" if hidden else "asked"
        bind: dict[str, str | Rows] = {"tokens": ("ids", "used", "n")}
        position = "used" if self.cache.positions == "contiguous" else "tokens"
        ints: dict[str, Counter | tuple[str, str]] = {"positions": (position, "n")}
        for spec in program.inputs:
            if spec.role == Role.VALUE and self.layers[spec.layer or 0].shared:
                bind[spec.name] = f"key_{spec.layer}"
            elif spec.role in (Role.KEY, Role.VALUE, Role.STATE, Role.TOKEN_POSITION):
                bind[spec.name] = spec.name
            elif spec.role == Role.COUNTER:
                ints[spec.name] = _INTS.get(spec.name, spec.name)
            elif spec.role == Role.ROWS and self.chooses_rows:
                ints[spec.name] = ("zero", "n" if queries else "one")
        for spec in program.outputs:
            if spec.role == Role.HIDDEN and hidden:
                bind[spec.name] = ("hidden", "next" if self.log else "one", "n")
            elif spec.role == Role.QUERIES and queries and spec.layer in self.asked:
                bind[spec.name] = (spec.name, first, "n")
            elif spec.role == Role.ENTRY_SCORE and hidden:  # written where the entries lie
                bind[spec.name] = (spec.name, "used", "n")
        return Run(run=PREFILL_CHUNK, one=DECODE, bind=bind, ints=ints)

    def _score(self, *, rows: Counter, known: Counter) -> list[Run]:
        """Every scored layer, by the queries that lie in the first rows of their buffers."""
        (score,) = [each for each in self.policy.scores if each.made_by == "queries"]
        paid = score.name if score.for_all else f"{score.name}_*"
        runs = []
        for name, members in self._by_program("score").items():
            bind: dict[str, str | Rows] = {"queries": ("queries_*", "zero", rows), "key": "key_*"}
            ints: dict[str, Counter | tuple[str, str]] = {"start": "start", "known": known}
            runs.append(
                Run(
                    run=name,
                    each=tuple(members),
                    bind=bind | {score.name: paid},
                    ints=ints | {"layer": "layer"},
                )
            )
        return runs

    def logits(self) -> Block:
        """The logits of the next token, from the state after the last one."""
        bind: dict[str, str | Rows] = {
            "hidden": ("hidden", "state", "one"),
            "next_tokens": ("ids", "zero", "one"),
            "logits": "logits",
        }
        return Block(do=(Run(run=HEAD, bind=bind),))

    def cycle(self) -> tuple[Block, ...]:
        """Annotate, score, evict; nothing where nothing is ever evicted.

        Where no layer is full, a cycle only lets the counters begin anew.
        """
        if not self.evicting and any(isinstance(layer.kind, Full) for layer in self.layers):
            return ()
        leave = self.archive.leave("zero") if self.archive.here else []
        return (*self._annotate(), *self._observe(), *leave, *self._evict())

    def flush(self) -> tuple[Block, ...]:
        """Archive all that the cache holds and the archive does not; the cache stays as it is."""
        if not self.archive.here:
            return ()
        done = Block(set={"archived_to": "tokens"})
        return (*self._annotate(), *self.archive.leave("one"), done)

    def recall(self) -> tuple[Block, ...]:
        """Ask the archive, which has everything, and fill the cache anew."""
        if not self.archive.here:
            return ()
        step = Block(
            over=Over(ids="catalyst", most="chunk_size"),
            do=(self._step(queries=True, hidden=False),),
            add=self._fills(),
            lend=True,
            count="asked",
        )
        return (step, *self.archive.ask(), *self._begin_anew("held"))

    def _annotate(self) -> list[Block]:
        """Negative log likelihoods and sentences of the tokens since the last cycle."""
        scores, blocks = self.policy.scores, []
        if self.log:
            blocks.append(self._nll("known", "known", end="used"))
        if "annotate" in self.programs:
            bind: dict[str, str | Rows] = {"ids": ("ids", "zero", "log_rows")}
            bind |= {
                each.name: (each.name, "zero", "log_rows")
                for each in (NLL, SENTENCE)
                if each in scores
            }
            ints: dict[str, Counter | tuple[str, str]] = {
                name: _INTS[name] for name in ("used", "kept", "tokens_read")
            }
            blocks.append(Block(do=(Run(run="annotate", bind=bind, ints=ints),)))
        return blocks

    def _observe(self) -> list[Block]:
        """Run the catalyst prompt, or the newest tokens once more, and score by their queries."""
        if not self.scored or self.policy.queries not in ("catalyst", "newest"):
            return []
        newest = self.policy.queries == "newest"
        over = Over(ids="catalyst", most="chunk_size")
        if newest:
            over = Over(ids="newest", count="newest", most="chunk_size")
        step = Block(
            over=over,
            do=(self._step(queries=True, hidden=False),),
            add=self._fills(),
            lend=not newest,
            count="asked",
        )
        return [step, Block(do=tuple(self._score(rows="asked", known="kept")))]

    def _evict(self) -> list[Block]:
        """Every full layer, into a spare one that swaps places with it; then the counters."""
        runs = []
        for name, members in self._by_program("evict").items():
            program, layer = self.programs[name], self.layers[members[0]]
            scores = () if layer.window else self.policy.scores
            bind: dict[str, str | Rows] = {}
            for score in scores:
                if score.made_by == "log":
                    bind[score.name] = (score.name, "zero", "capacity")
                elif score.made_by == "step":
                    bind[score.name] = (f"{score.name}_*", "zero", "capacity")
                elif score.made_by == "queries":
                    bind[score.name] = score.name if score.for_all else f"{score.name}_*"
            moved = [each for each in CACHE if each in program.input_names]
            if not layer.window:
                moved += [stored_name(each) for each in stored_scores(self.policy)]
            swap = []
            for each in moved:
                spare = spare_name(each, layer)
                bind |= {each: bind.get(each, f"{each}_*"), f"{each}_out": spare}
                swap.append((f"{each}_*", spare))
            for score in scores:
                if score.made_by == "step":
                    spare = spare_name(score.name, layer)
                    bind[f"{score.name}_out"] = (spare, "zero", "capacity")
            ints: dict[str, Counter | tuple[str, str]] = {
                each: _INTS[each] for each in COUNTERS if each in program.input_names
            }
            ints["new_slots"] = ("zero", "budget")
            runs.append(Run(run=name, each=tuple(members), bind=bind, ints=ints, swap=tuple(swap)))
        first, *others = self._begin_anew("budget")
        return [msgspec.structs.replace(first, do=tuple(runs)), *others]

    def _begin_anew(self, held: Counter) -> list[Block]:
        """The counters and logs where the cache has just been left with so many entries."""
        kept: dict[Counter, Counter] = {"used": held, "kept": held, "known": held}
        if not self.log:
            first: tuple[Rows, ...] = (("hidden", "state", "zero"),)
            if SENTENCE in self.policy.scores:
                first = (*first, ("sentence", "used", held))
            return [Block(after=first, set=kept | {"state": "zero"})]
        logs = ["hidden", *(["sentence"] if SENTENCE in self.policy.scores else [])]
        after = tuple((name, "used", held) for name in logs)
        more = {"state": held, "next": held, "tick": "zero"}
        return [
            Block(after=after, set=kept | more),
            # the row behind the last state: one more than what is held
            Block(over=Over(rows=("tick", "one"), most="one"), add=("tick", "next")),
        ]

    def compact(self, group: Group) -> tuple[Block, ...]:
        """Find what a kind of layer can still see; where that is less, move it to the front."""
        number = group.used.rpartition("_")[2]
        held, spare = f"token_position_{group.name}", f"spare_token_position_{group.name}"
        stays, seen = f"stays_{group.name}", f"seen_{number}"
        see = Run(
            run=f"see_{number}",
            bind={"token_position": held, "token_position_out": spare, "stays": stays},
            ints={"used": group.used, "kept": group.kept, "tokens_read": "tokens"},
            read={"seen": seen},
        )
        runs = []
        for name, members in self._by_program("compact", group.layers).items():
            layer = self.layers[members[0]]
            bind: dict[str, str | Rows] = {"stays": stays}
            swap = []
            for each in ("key", "value"):
                bind |= {each: f"{each}_*", f"{each}_out": spare_name(each, layer)}
                swap.append((f"{each}_*", spare_name(each, layer)))
            runs.append(Run(run=name, each=tuple(members), bind=bind, swap=tuple(swap)))
        move = Block(
            when=(seen, group.used),
            do=tuple(runs),
            swap=((held, spare),),
            set={group.used: seen, group.kept: seen},
        )
        return (Block(do=(see,)), move)

    def _by_program(self, what: str, among: tuple[int, ...] | None = None) -> dict[str, list[int]]:
        """Program -> the layers that name it, in order."""
        found: dict[str, list[int]] = {}
        for i in range(len(self.layers)) if among is None else among:
            if (name := getattr(self.layers[i], what)) is not None:
                found.setdefault(name, []).append(i)
        return found
