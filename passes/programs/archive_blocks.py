"""The blocks that write to an archive and call back from it, its columns, and their buffers."""

from collections.abc import Iterator, Mapping, Sequence

from lcc.artifact.schedule import Block, BufferSpec, Column, Counter, Over, Rows, Run
from lcc.config import CacheConfig
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.passes.policies import EvictionPolicy
from lcc.passes.programs.archive import archived_scores, knows_likelihoods
from lcc.passes.programs.cycle import CycleLayer
from lcc.passes.programs.evict import COUNTERS, stored_name

SCAN_ROWS = 1024  # rows of an archive that one call attends to
ARCHIVE_COUNTERS = ("archiving", "archived", "archived_to", "leaving", "back", "first", "held")

# Inputs of one integer: what a program calls it -> the counter that says it.
INTEGERS = {"tokens_read": "tokens", "count": "back"}


def columns_of(layers: Sequence[CycleLayer], policy: EvictionPolicy) -> Iterator[Column]:
    """What an archive holds of each token; nothing where there is none."""
    members = [i for i, layer in enumerate(layers) if layer.archive is not None]
    if not members:
        return
    yield Column(name="position", role=Role.TOKEN_POSITION, dtype="int64")
    for each in archived_scores(policy):
        yield Column(name=each.name, role=Role.ENTRY_SCORE, dtype="float32")
    for i in members:
        shape = (layers[i].kv_heads, layers[i].head_size)
        for name in layers[i].entry:
            yield Column(name=f"{name}_{i}", role=Role(name), dtype="float32", shape=shape, layer=i)


def archive_buffers(
    layers: Sequence[CycleLayer], cache: CacheConfig, policy: EvictionPolicy
) -> Iterator[BufferSpec]:
    """Where rows of an archive lie on their way; those named by counters grow with a recall."""
    members = [layer for layer in layers if layer.archive is not None]
    if not members:
        return
    scores = [each.name for each in archived_scores(policy)]
    for name in ("leaving", "rows"):
        size = "capacity" if name == "leaving" else "budget"
        yield BufferSpec(name=name, role=Role.KEPT, dtype="int64", shape=(size,))
    kinds = {"position": "int64"} | dict.fromkeys(scores, "float32")
    for place, rows in (("archived", "capacity"), ("back", "budget")):
        for what, dtype in kinds.items():
            name = f"{place}_{what}"
            yield BufferSpec(name=name, role=Role.ARCHIVED, dtype=dtype, shape=(rows,))
        parts = ((what, each) for each in members for what in each.entry)
        for what, row in dict.fromkeys((what, (e.kv_heads, e.head_size)) for what, e in parts):
            yield _rows_of(f"{place}_{what}", rows, row)
    for row in dict.fromkeys((e.kv_heads, e.head_size) for e in members if e.vote):
        yield _rows_of("scanned_key", "scan_rows", row)
    for i, layer in enumerate(layers):
        if layer.vote is not None:
            asked = (cache.catalyst_size, layer.query_heads)
            name = f"total_{i}"
            yield BufferSpec(name=name, role=Role.ARCHIVED, dtype="float32", shape=asked)
    of_all = {"votes": "float32"} | {f"all_{what}": kinds[what] for what in _ranked_by(policy)}
    for name, dtype in of_all.items():
        yield BufferSpec(name=name, role=Role.ARCHIVED, dtype=dtype, shape=("archived",))
    yield BufferSpec(name="by_token", role=Role.ARCHIVED, dtype="float32", shape=("tokens",))


def _ranked_by(policy: EvictionPolicy) -> list[str]:
    """The columns that a choice among all archived rows reads, beside the votes."""
    return ["position", "sentence", *(["nll"] if knows_likelihoods(policy) else [])]


def _rows_of(what: str, rows: str, row: tuple[int, int]) -> BufferSpec:
    """Keys or values of so many rows, of KV heads and head size `row`."""
    name = f"{what}_{row[0]}x{row[1]}"
    return BufferSpec(name=name, role=Role.ARCHIVED, dtype="float32", shape=(rows, *row))


class ArchiveBlocks:
    """The blocks of one artifact.

    here        whether it has an archive at all
    voting      layers that vote in a recall
    """

    def __init__(
        self, programs: Mapping[str, Program], layers: list[CycleLayer], policy: EvictionPolicy
    ) -> None:
        self.programs, self.layers, self.policy = programs, layers, policy
        self.members = [i for i, layer in enumerate(layers) if layer.archive is not None]
        self.voting = [i for i, layer in enumerate(layers) if layer.vote is not None]
        self.here = bool(self.members)

    def leave(self, everything: Counter) -> list[Block]:
        """Append what is about to leave the cache, or all of it, where there is an archive."""
        run = Run(
            run="leave",
            bind=self._scores("leave", self.members[0])
            | {"token_position": f"token_position_{self.members[0]}", "leaving": "leaving"}
            | {name: name for name in self.programs["leave"].output_names[2:]},
            ints={
                **{each: INTEGERS.get(each, each) for each in (*COUNTERS, "archived_to")},
                "everything": everything,
                "new_slots": ("zero", "budget"),
            },
            read={"count": "leaving"},
        )
        shared = {name.removeprefix("archived_"): name for name in run.bind if "archived_" in name}
        runs = []
        for name, layers in self._by_program("archive").items():
            kind = self._shape(layers[0])
            bind: dict[str, str | Rows] = {"leaving": ("leaving", "zero", "leaving")}
            store = {}
            for what in self.layers[layers[0]].entry:
                bind[what] = f"{what}_*"
                bind[f"archived_{what}"] = (f"archived_{what}_{kind}", "zero", "leaving")
                store[f"{what}_*"] = f"archived_{what}_{kind}"
            runs.append(Run(run=name, each=tuple(layers), bind=bind, store=store))
        return [
            Block(when=("zero", "archiving"), do=(run,)),
            Block(
                when=("zero", "leaving"),
                do=tuple(runs),
                append="leaving",
                store=shared,
                set={"leaving": "zero"},
            ),
        ]

    def ask(self) -> list[Block]:
        """Two scans of the archive, a choice, and the cache filled with it."""
        rows = Over(rows=("row", "archived"), most="scan_rows")
        attend, vote = (
            self._scan("attend", {}),
            self._scan("vote", {"votes": ("votes", "row", "n")}),
        )
        ranked_by = _ranked_by(self.policy)
        columns = {f"all_{what}": (what, "row") for what in ranked_by}
        taken = {"back_position": "position"}
        taken |= {f"back_{each.name}": each.name for each in archived_scores(self.policy)}
        first = self.members[0]
        choose = Run(
            run="choose",
            bind={
                "votes": "votes",
                **{what: f"all_{what}" for what in ranked_by},
                "by_token": "by_token",
                "token_position": f"token_position_{first}",
                "rows": "rows",
            },
            ints={
                **{each: INTEGERS.get(each, each) for each in ("used", "kept", "protected")},
                "tokens_read": "tokens",
                "new_slots": ("zero", "budget"),
            },
            read={"count": "back", "first": "first", "held": "held"},
        )
        return [
            Block(
                grow=("votes", *columns, "by_token"),
                set={"row": "zero"},
            ),
            Block(over=rows, do=tuple(attend), add=("row",)),
            Block(set={"row": "zero"}),
            Block(over=rows, do=tuple(vote), load=columns, add=("row",)),
            Block(do=(choose,)),
            Block(do=tuple(self._put_back()), gather=taken),
        ]

    def _scan(self, program: str, more: dict[str, str | Rows]) -> list[Run]:
        runs = []
        for name, layers in self._by_program(program).items():
            keys = f"scanned_key_{self._shape(layers[0])}"
            bind: dict[str, str | Rows] = {
                "queries": ("queries_*", "zero", "asked"),
                "archived_key": (keys, "zero", "n"),
                "total": ("total_*", "zero", "asked"),
            }
            integers = {spec.name for spec in self.programs[name].with_role(Role.COUNTER)}
            runs.append(
                Run(
                    run=name,
                    each=tuple(layers),
                    bind=bind | more,
                    ints={each: each for each in sorted(integers)},
                    load={keys: ("key_*", "zero")},
                )
            )
        return runs

    def _put_back(self) -> list[Run]:
        runs = []
        scores = archived_scores(self.policy)
        for name, layers in self._by_program("put_back").items():
            layer, kind = self.layers[layers[0]], self._shape(layers[0])
            bind: dict[str, str | Rows] = self._scores(name, "*")
            gather, swap = dict[str, str](), []
            for what in layer.entry:
                gather[f"back_{what}_{kind}"] = f"{what}_*"
                bind[f"back_{what}"] = f"back_{what}_{kind}"
            bind["back_position"] = "back_position"
            bind |= {f"back_{each.name}": f"back_{each.name}" for each in scores}
            for what in (*layer.entry, "token_position", *map(stored_name, scores)):
                spare = f"spare_{what}_{layer.kv_heads}xcapacityx{layer.head_size}"
                bind |= {what: bind.get(what, f"{what}_*"), f"{what}_out": spare}
                swap.append((f"{what}_*", spare))
            integers = [spec.name for spec in self.programs[name].with_role(Role.COUNTER)]
            runs.append(
                Run(
                    run=name,
                    each=tuple(layers),
                    bind=bind,
                    ints={each: INTEGERS.get(each, each) for each in integers},
                    gather=gather,
                    swap=tuple(swap),
                )
            )
        return runs

    def _scores(self, program: str, layer: int | str) -> dict[str, str | Rows]:
        """The entry scores that a program reads, where they lie."""
        bind: dict[str, str | Rows] = {}
        for each in self.policy.scores:
            if each.made_by == "log":
                bind[each.name] = (each.name, "zero", "capacity")
                bind[f"{each.name}_kept"] = f"{each.name}_kept_{layer}"
            else:
                bind[each.name] = each.name
        return {
            name: what for name, what in bind.items() if name in self.programs[program].input_names
        }

    def _shape(self, layer: int) -> str:
        return f"{self.layers[layer].kv_heads}x{self.layers[layer].head_size}"

    def _by_program(self, what: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, layer in enumerate(self.layers):
            if (name := getattr(layer, what)) is not None:
                found.setdefault(name, []).append(i)
        return found
