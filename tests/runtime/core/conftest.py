"""A toy model of two layers in NumPy, behind the `Engine` protocol, and an oracle made of lists.

Layer 0 is full and evicts; layer 1 sees the text's first token and the last three, and compacts.
A key is the token times the layer's number from 1; the state after a token is

    [sum of the keys that layer 0 holds, sum of those that layer 1 sees, the token, 1]
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lcc.artifact.check_schedule import check_schedule
from lcc.artifact.manifest import LayerEntry, Manifest, ModelEntry, ProgramEntry
from lcc.artifact.schedule import (
    Block,
    BufferSpec,
    Group,
    Over,
    Run,
    Schedule,
    TensorSpec,
    TextFacts,
)
from lcc.config import CacheConfig, PolicyConfig
from lcc.ir.plan import Full, SinkWindow
from lcc.ir.roles import Role
from lcc.runtime.core.executor import Executor

VOCABULARY, SLOTS, ROWS = 23, 8, 17
HEAD = np.random.default_rng(3).normal(size=(4, VOCABULARY)).astype(np.float32)
HEAD[:2] /= 50
KEY, VALUE, COUNTER = Role.KEY, Role.VALUE, Role.COUNTER


def spec(name: str, role: Role, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, role=role, dtype=dtype, shape=shape)


def one(*names: str) -> list[TensorSpec]:
    return [spec(name, COUNTER, 1, dtype="int32") for name in names]


def caches(layer: str, slots: str) -> list[TensorSpec]:
    return [
        spec(f"{k}{layer}", role, 1, 1, slots, 1) for k, role in (("key", KEY), ("value", VALUE))
    ]


def positions(*names: str) -> list[TensorSpec]:
    return [spec(name, Role.TOKEN_POSITION, 1, "S", dtype="int64") for name in names]


def programs(length: int | None = None) -> dict[str, ProgramEntry]:
    """`length`: tokens that the step takes always; None = any number."""
    q = "Q" if length is None else length
    outputs = [spec("hidden", Role.HIDDEN, 1, q, 4), spec("queries", Role.QUERIES, q, 1)]
    updates = {"key_0_out": "key_0", "value_0_out": "value_0"}
    updates |= {"key_1_out": "key_1", "value_1_out": "value_1"}
    inputs = [
        spec("tokens", Role.TOKENS, 1, q, dtype="int64"),
        spec("positions", Role.POSITIONS, 1, q, dtype="int64"),
        *one("used", "used_1"),
        *caches("_0", "S"),
        *caches("_1", "W"),
    ]
    outputs += [
        msgspec.structs.replace(each, name=f"{each.name}_out")
        for each in inputs
        if "_0" in each.name
    ]
    outputs += [
        msgspec.structs.replace(each, name=f"{each.name}_out")
        for each in inputs
        if each.name in ("key_1", "value_1")
    ]
    step = ProgramEntry(file="step", inputs=inputs, outputs=outputs, updates=updates)
    head_inputs = [
        spec("hidden", Role.HIDDEN, "n", 4),
        spec("next", Role.TOKENS, "n", dtype="int64"),
    ]
    head_outputs = [spec("logits", Role.LOGITS, 1, VOCABULARY), spec("nll", Role.ENTRY_SCORE, "n")]
    score_inputs = [spec("queries", Role.QUERIES, "n", 1), spec("key", KEY, 1, 1, "S", 1)]
    paid = spec("paid", Role.ENTRY_SCORE, "S")
    evict_inputs = [
        *caches("", "S"),
        *positions("token_position"),
        paid,
        *one("used", "kept", "tokens", "protected", "left", "layer"),
        spec("new_slots", Role.SLOTS, "b", dtype="int64"),
    ]
    moved = [
        *(msgspec.structs.replace(each, name=f"{each.name}_out") for each in caches("", "S")),
        *positions("token_position_out"),
    ]
    see = ProgramEntry(
        file="see",
        inputs=[*positions("token_position"), *one("used", "kept", "tokens")],
        outputs=[
            *positions("token_position_out"),
            spec("stays", Role.KEPT, 1, "S", dtype="int64"),
            *one("seen"),
        ],
    )
    compact = ProgramEntry(
        file="compact",
        inputs=[*caches("", "S"), spec("stays", Role.KEPT, 1, "S", dtype="int64")],
        outputs=moved[:2],
    )
    return {
        "step": step,
        "one": programs_of_one(step),
        "head": ProgramEntry(file="head", inputs=head_inputs, outputs=head_outputs),
        "score": ProgramEntry(
            file="score",
            inputs=[*score_inputs, *one("start"), paid],
            outputs=[msgspec.structs.replace(paid, name="paid_out")],
            updates={"paid_out": "paid"},
        ),
        "evict": ProgramEntry(
            file="evict",
            inputs=evict_inputs,
            outputs=[*moved, msgspec.structs.replace(paid, name="paid_out")],
            updates={"paid_out": "paid"},
        ),
        "see": see,
        "compact": compact,
    }


def programs_of_one(step: ProgramEntry) -> ProgramEntry:
    """The step, for exactly one token."""

    def one_row(tensor: TensorSpec) -> TensorSpec:
        shape = tuple(1 if size == "Q" else size for size in tensor.shape)
        return msgspec.structs.replace(tensor, shape=shape)

    inputs, outputs = ([one_row(each) for each in part] for part in (step.inputs, step.outputs))
    return msgspec.structs.replace(step, inputs=inputs, outputs=outputs)


def buffers(log: bool, dtype: str) -> list[BufferSpec]:
    def buffer(name: str, role: Role, *shape: int | str, **more: object) -> BufferSpec:
        return BufferSpec(
            **({"name": name, "role": role, "dtype": "float32", "shape": shape} | more)
        )

    full, window = {"saved": ("zero", "used")}, {"saved": ("zero", "used_1")}
    kept, cache = {"dtype": "int64", "axis": 1}, {"dtype": dtype, "axis": 2}
    places = ("token_position_0", "token_position_w")
    states = ("kept", "next") if log else ("zero", "hidden_rows")
    return [
        buffer("ids", Role.TOKENS, ROWS, dtype="int64", saved=("kept", "used")),
        buffer("hidden", Role.HIDDEN, ROWS if log else "hidden_rows", 4, saved=states),
        buffer("logits", Role.LOGITS, 1, VOCABULARY),
        buffer("nll", Role.ENTRY_SCORE, ROWS, saved=("zero", "known")),
        buffer("paid", Role.ENTRY_SCORE, "capacity"),
        buffer("queries", Role.QUERIES, ROWS, 1),
        *(buffer(f"{k}_0", r, 1, 1, "capacity", 1, layer=0, **cache, **full) for k, r in KV),
        *(buffer(f"{k}_1", r, 1, 1, SLOTS, 1, layer=1, **cache, **window) for k, r in KV),
        *(buffer(f"spare_{k}_0", r, 1, 1, "capacity", 1, **cache) for k, r in KV),
        *(buffer(f"spare_{k}_1", r, 1, 1, SLOTS, 1, **cache) for k, r in KV),
        buffer(
            places[0], Role.TOKEN_POSITION, 1, "capacity", layer=0, saved=("zero", "kept"), **kept
        ),
        buffer("spare_position_0", Role.TOKEN_POSITION, 1, "capacity", **kept),
        buffer(
            places[1], Role.TOKEN_POSITION, 1, SLOTS, group="w", saved=("zero", "kept_1"), **kept
        ),
        buffer("spare_position_w", Role.TOKEN_POSITION, 1, SLOTS, group="w", **kept),
        buffer("stays", Role.KEPT, 1, SLOTS, group="w", **kept),
    ]


KV = (("key", KEY), ("value", VALUE))


def step_run(first: str, *, hidden: str | None) -> Run:
    bind = {"tokens": ("ids", "used", "n"), "queries": ("queries", first, "n")}
    bind |= {f"{k}_{i}": f"{k}_{i}" for k, _ in KV for i in (0, 1)}
    if hidden is not None:
        bind["hidden"] = ("hidden", hidden, "n")
    ints = {"positions": ("used", "n"), "used": "used", "used_1": "used_1"}
    return Run(run="step", one="one", bind=bind, ints=ints)


def nll(state: str, token: str, end: str) -> Block:
    bind = {"hidden": ("hidden", state, "n"), "next": ("ids", token, "n")}
    run = Run(run="head", bind=bind | {"nll": ("nll", state, "n")})
    over, add = Over(rows=(state, end), most="head_rows"), tuple({state: 0, token: 0})
    return Block(over=over, do=(run,), add=add)


def reading_nll(read: Block, *, log: bool) -> tuple[Block, ...]:
    if log:
        return read, nll("known", "known", "used")
    before = Block(when=("no_state", "state"), after=(("hidden", "state", "zero"),))
    begin = Block(set={"tick": "zero", "row": "used"})
    return before, begin, read, nll("tick", "row", "state")


def cycle(rank: str, log: bool) -> tuple[Block, ...]:
    blocks = []
    if rank == "nll":
        blocks.append(nll("known", "known", "used"))
    elif rank in ("catalyst", "newest"):
        newest = rank == "newest"
        over = Over(ids=rank, most="chunk_size", count="newest" if newest else None)
        fills = ("used", "tokens", "used_1", "next")
        observe = (step_run("asked", hidden=None),)
        blocks.append(Block(over=over, do=observe, add=fills, lend=not newest, count="asked"))
        bind = {"queries": ("queries", "zero", "asked"), "key": "key_0", "paid": "paid"}
        blocks.append(Block(do=(Run(run="score", bind=bind, ints={"start": "start"}),)))
    bind = {k: f"{k}_*" for k in ("key", "value", "token_position")}
    bind |= {f"{k}_out": f"spare_{k}_*" for k in ("key", "value")}
    bind |= {"token_position_out": "spare_position_*"}
    bind["paid"] = ("nll", "zero", "capacity") if rank == "nll" else "paid"
    ints = {k: k for k in ("used", "kept", "tokens", "protected", "left", "layer")}
    swap = (("key_*", "spare_key_*"), ("value_*", "spare_value_*"))
    swap += (("token_position_*", "spare_position_*"),)
    ints |= {"new_slots": ("zero", "budget")}
    after = (("hidden", "used", "budget") if log else ("hidden", "state", "zero"),)
    settled = {"used": "budget", "kept": "budget", "known": "budget"}
    settled |= {"state": "budget" if log else "zero", "next": "budget", "tick": "zero"}
    evict = Run(run="evict", each=(0,), bind=bind, ints=ints, swap=swap)
    blocks.append(Block(do=(evict,), after=after, set=settled))
    blocks.append(Block(over=Over(rows=("tick", "one"), most="one"), add=("tick", "next")))
    return tuple(blocks)


def compacting() -> tuple[Block, ...]:
    see = Run(
        run="see",
        bind={
            "token_position": "token_position_w",
            "token_position_out": "spare_position_w",
            "stays": "stays",
        },
        ints={"used": "used_1", "kept": "kept_1", "tokens": "tokens"},
        read={"seen": "seen"},
    )
    move = Run(
        run="compact",
        each=(1,),
        bind={k: f"{k}_*" for k, _ in KV}
        | {f"{k}_out": f"spare_{k}_*" for k, _ in KV}
        | {"stays": "stays"},
        swap=tuple((f"{k}_*", f"spare_{k}_*") for k, _ in KV),
    )
    moved = Block(
        when=("seen", "used_1"),
        do=(move,),
        swap=(("token_position_w", "spare_position_w"),),
        set={"used_1": "seen", "kept_1": "seen"},
    )
    return (Block(do=(see,)), moved)


def toy_manifest(
    rank: str = "nll",
    *,
    align: str | None = None,
    length: int | None = None,
    dtype: str = "float32",
    evicts: bool = True,
) -> Manifest:
    """`rank`: what a cycle goes by: nll, catalyst or newest."""
    log = rank == "nll"
    entries = programs(length)
    if dtype != "float32":
        for entry in entries.values():
            for part in (entry.inputs, entry.outputs):
                for i, tensor in enumerate(part):
                    if tensor.role in (KEY, VALUE):
                        part[i] = msgspec.structs.replace(tensor, dtype=dtype)
    read = Block(
        over=Over(ids="text", most="chunk_size"),
        do=(step_run("zero", hidden="next" if log else "one"),),
        add=("used", "tokens", "used_1", "next"),
        set={"state": "used" if log else "n"},
    )
    logits = Run(
        run="head",
        bind={
            "hidden": ("hidden", "state", "one"),
            "next": ("ids", "zero", "one"),
            "logits": "logits",
        },
    )
    layers = [
        LayerEntry(query_heads=1, kv_heads=1, head_size=1),
        LayerEntry(
            query_heads=1, kv_heads=1, head_size=1, kind=SinkWindow(sink=1, window=3), slots=8
        ),
    ]
    assert isinstance(layers[0].kind, Full)
    names = "used kept tokens n start layer protected known used_1 kept_1 seen asked tick row"
    reads = rank == "catalyst" and evicts
    return Manifest(
        made_by="a test",
        target="toy",
        model=ModelEntry(
            name="toy", architecture="Toy", hidden_size=4, vocab_size=VOCABULARY, layers=layers
        ),
        cache=CacheConfig(
            capacity=12, budget=5, chunk_size=4, catalyst_size=3, sink_size=1, recent_size=1
        ),
        policy=PolicyConfig(name=rank),
        constants={
            **{"zero": 0, "one": 1, "no_state": -1, "capacity": 12, "budget": 5, "chunk_size": 4},
            **{"reserved": 3 if reads else 0, "head_rows": 2, "newest": 3, "hidden_rows": 6},
        },
        counters=dict.fromkeys(names.split(), 0) | {"next": 1, "state": -1, "left": -1},
        groups=(
            Group(name="full", used="used", kept="kept", slots="capacity", layers=(0,)),
            Group(name="w", used="used_1", kept="kept_1", slots=SLOTS, layers=(1,), align=align),
        ),
        buffers=tuple(buffers(log, dtype)),
        schedule=Schedule(
            read=(read,),
            cycle=cycle(rank, log) if evicts else (),
            logits=(Block(do=(logits,)),),
            nll=reading_nll(read, log=log),
            compact={"w": compacting()},
            log=log,
        ),
        text=TextFacts(),
        programs=entries,
        passes=[],
        memory=[],
    )


class ToyEngine:
    """The programs, by loops; counts what runs."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.calls = manifest, list[str]()
        self.fail_in: str | None = None

    def load_all(self) -> None:
        pass

    def program(self, name: str) -> ProgramEntry:
        return self.manifest.programs[name]

    def zeros(self, shape: list, dtype: str, role: Role) -> np.ndarray:
        return np.zeros(shape, dtype)

    def runner(self, program: str) -> "ToyRunner":
        return ToyRunner(self, program)


class ToyRunner:
    def __init__(self, engine: ToyEngine, name: str) -> None:
        self.engine, self.name, self.entry = engine, name, engine.program(name)
        self.bound: dict[str, np.ndarray] = {}

    def bind(self, arrays: dict) -> None:
        self.bound |= arrays

    def __call__(self, arrays: dict) -> None:
        every = self.bound | arrays
        sizes: dict[str, int] = {}
        for tensor in [*self.entry.inputs, *self.entry.outputs]:
            if tensor.name in every or tensor in self.entry.inputs:
                array = every[tensor.name]
                assert str(array.dtype) == tensor.dtype, tensor.name
                assert array.flags.c_contiguous
                for size, wanted in zip(array.shape, tensor.shape, strict=True):
                    assert size == (
                        sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted
                    ), (self.name, tensor.name)
        self.engine.calls.append(self.name)
        if self.engine.fail_in == self.name:
            raise RuntimeError("out of order")
        for output, source in self.entry.updates.items():
            every.setdefault(output, every[source])
        for name, result in getattr(self, self.entry.file)(every).items():
            if name in every:
                every[name][...] = result

    def step(self, a: dict) -> dict:
        tokens, used, window = a["tokens"][0], int(a["used"][0]), int(a["used_1"][0])
        assert a["positions"][0].tolist() == list(range(used, used + len(tokens)))
        rows = []
        for j, token in enumerate(tokens.tolist()):
            for layer, slot in ((0, used + j), (1, window + j)):
                if slot < a[f"key_{layer}"].shape[2]:  # what is behind a short chunk may not fit
                    a[f"key_{layer}"][0, 0, slot, 0] = token * (layer + 1)
                    a[f"value_{layer}"][0, 0, slot, 0] = token / 2
            full = a["key_0"][0, 0, : used + j + 1, 0].sum(dtype=np.float32)
            held = a["key_1"][0, 0, : window + j + 1, 0]
            seen = held if len(held) < 4 else [held[0], *held[-3:]]
            rows.append([full, sum(seen), token, 1])
        return {"hidden": np.array([rows]), "queries": tokens[:, None]}

    def head(self, a: dict) -> dict:
        logits = a["hidden"] @ HEAD
        nll = [
            np.log(np.exp(row.astype(np.float64)).sum()) - row[token]
            for row, token in zip(logits, a["next"], strict=True)
        ]
        return {"logits": logits[-1:], "nll": nll}

    def score(self, a: dict) -> dict:
        total = a["queries"].sum()
        paid = [(float(key) * total + float(a["start"][0])) % 7 for key in a["key"][0, 0, :, 0]]
        return {"paid_out": paid}

    def evict(self, a: dict) -> dict:
        used, protected = int(a["used"][0]), int(a["protected"][0])
        budget, kept = len(a["new_slots"]), int(a["kept"][0])
        assert a["new_slots"].tolist() == list(range(budget))
        assert used > budget > max(1, protected) + 1
        safe = [s for s in range(used) if s < max(1, protected) or s == used - 1]
        rest = sorted(set(range(used)) - set(safe), key=lambda s: (-a["paid"][s], s))
        stay = sorted(safe + rest[: budget - len(safe)])
        at = [int(a["token_position"][0, s]) if s < kept else s - used + int(a["tokens"][0])
              for s in range(used)]  # fmt: skip
        out = {f"{k}_out": np.zeros_like(a[k]) for k in ("key", "value", "token_position", "paid")}
        for new, old in enumerate(stay):
            for k in ("key", "value"):
                out[f"{k}_out"][0, 0, new] = a[k][0, 0, old]
            out["token_position_out"][0, new], out["paid_out"][new] = at[old], a["paid"][old]
        return out

    def see(self, a: dict) -> dict:
        used, kept, slots = int(a["used"][0]), int(a["kept"][0]), a["token_position"].shape[1]
        at = [int(a["token_position"][0, s]) if s < kept else s - used + int(a["tokens"][0])
              for s in range(used)]  # fmt: skip
        stay = list(range(used)) if used <= 4 else [0, used - 3, used - 2, used - 1]
        places = stay + [0] * (slots - len(stay))
        new = [at[s] for s in stay] + [0] * (slots - len(stay))
        return {"token_position_out": [new], "stays": [places], "seen": len(stay)}

    def compact(self, a: dict) -> dict:
        stay = a["stays"][0]
        return {f"{k}_out": a[k][:, :, stay] for k in ("key", "value")}


class Oracle:
    """The same text read token by token, from lists; knows nothing of buffers or programs."""

    def __init__(self, rank: str = "nll", catalyst: tuple[int, ...] = (2, 5)) -> None:
        self.rank, self.catalyst = rank, catalyst
        self.text: list[int] = []
        self.held: list[tuple[int, int, float]] = []  # position, token, nll
        self.protected = 0
        self.cycles = 0

    def state(self) -> list[float]:
        seen = self.text if len(self.text) < 4 else [self.text[0], *self.text[-3:]]
        return [sum(t for _, t, _ in self.held), 2 * sum(seen), self.text[-1], 1]

    def logits(self) -> np.ndarray:
        """What follows, from the state after the last token, as it was when it was read."""
        return np.array(self.last, np.float32) @ HEAD

    def read(self, ids: list[int]) -> list[float]:
        found = []
        for token in ids:
            if len(self.held) == (9 if self.rank == "catalyst" else 12):
                self.cycle()
            nll = 1e30
            if self.text:
                logits = self.logits().astype(np.float64)
                nll = float(np.log(np.exp(logits).sum()) - logits[token])
            found.append(nll)
            self.held.append((len(self.text), token, nll))
            self.text.append(token)
            self.last = self.state()
        return found

    def cycle(self) -> None:
        self.cycles += 1
        total, start = sum(self.catalyst), len(self.held)
        if self.rank == "newest":
            count = min(3, len(self.held) - (5 if self.cycles > 1 else 0))
            total, start = sum(self.text[-count:]), len(self.held) - count
        first = max(1, self.protected)
        middle = self.held[first:-1]
        if self.rank == "nll":
            middle = sorted(middle, key=lambda e: (-np.float32(e[2] if e[0] else 9.0), e[0]))
        else:
            middle = sorted(middle, key=lambda e: (-((e[1] * total + start) % 7), e[0]))
        kept = self.held[:first] + middle[: 5 - first - 1] + self.held[-1:]
        self.held = sorted(kept)

    def positions(self) -> list[int]:
        return [position for position, _, _ in self.held]


@pytest.fixture
def make() -> Callable[..., Executor]:
    """An executor of the toy model; `.engine` is the engine behind it."""

    def make(*, sizes: CacheConfig | None = None, **options: object) -> Executor:
        manifest = toy_manifest(**options)
        check_schedule(manifest, manifest.programs)
        engine = ToyEngine(manifest)
        executor = Executor(manifest, sizes or manifest.cache, engine)
        executor.engine = engine
        return executor

    return make


@pytest.fixture
def make_oracle() -> type[Oracle]:
    """What an executor of the toy model holds after the same tokens."""
    return Oracle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lccstate"


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    """The manifest of the toy model."""
    return toy_manifest
