"""A model in NumPy and loops behind the `Engine` protocol, and an oracle that reads one by one."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest

import lcc.runtime
from lcc.artifact.folder import write_artifact
from lcc.artifact.manifest import LayerEntry, Manifest, ModelEntry, ProgramEntry
from lcc.artifact.schedule import (
    Block,
    BufferSpec,
    Catalyst,
    Group,
    Over,
    Run,
    Schedule,
    TensorSpec,
    TextFacts,
)
from lcc.config import HEAD_ROWS, CacheConfig, PolicyConfig
from lcc.ir.roles import Role
from lcc.testing.tiny import CHAT_TEMPLATE, END, VOCAB_SIZE, tiny_tokenizer

LAYERS, HQ, HKV, D, H = 2, 4, 2, 4, 8
FREQUENCIES = [1.0, 0.1]


def rotated(vector: np.ndarray, position: int) -> np.ndarray:
    """Turn pairs (0, 1) and (2, 3) of [D]."""
    result = vector.astype(np.float64)
    for pair, frequency in enumerate(FREQUENCIES):
        cos, sin = math.cos(position * frequency), math.sin(position * frequency)
        a, b = vector[2 * pair], vector[2 * pair + 1]
        result[2 * pair : 2 * pair + 2] = a * cos - b * sin, a * sin + b * cos
    return result


def softmax(logits: list[float]) -> list[float]:
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    return [weight / sum(weights) for weight in weights]


class FakeModel:
    """Weights of a decoder without norms or MLPs; everything else is in the two readers below."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.embedding = random.normal(size=(VOCAB_SIZE, H))
        self.q = random.normal(size=(LAYERS, H, HQ * D)) * 0.5
        self.k = random.normal(size=(LAYERS, H, HKV * D)) * 0.5
        self.v = random.normal(size=(LAYERS, H, HKV * D)) * 0.5
        self.o = random.normal(size=(LAYERS, HQ * D, H)) * 0.4
        self.head = random.normal(size=(H, VOCAB_SIZE))

    def project(self, layer: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (
            (x @ self.q[layer]).reshape(HQ, D),
            (x @ self.k[layer]).reshape(HKV, D),
            (x @ self.v[layer]).reshape(HKV, D),
        )


def luck(token: int, head: int) -> int:
    """What the policy without a catalyst ranks by: any fixed number of a token and a head."""
    return (token * 7 + head * 3) % 11


class FakeEngine:
    """The contract of the programs, by loops; records calls."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.model = manifest, FakeModel()
        self.calls: list[str] = []
        self.lefts: list[int] = []  # of each cycle, what it was told of the rest of the text
        self.fail_in: str | None = None
        self.before_evict = lambda: None
        self.loaded = False
        self.threads: set[int] = set()

    def zeros(self, shape: list, dtype: str, role: Role) -> np.ndarray:
        return np.zeros(shape, dtype)

    def load_all(self) -> None:
        self.loaded = True

    def program(self, name: str) -> ProgramEntry:
        return self.manifest.programs[name]

    def runner(self, program: str) -> "FakeRunner":
        return FakeRunner(self, program)


class FakeRunner:
    def __init__(self, engine: FakeEngine, name: str) -> None:
        self.engine, self.name, self.entry = engine, name, engine.program(name)
        self.bound: dict[str, np.ndarray] = {}

    def bind(self, arrays: dict) -> None:
        self.bound |= arrays

    def __call__(self, given: dict) -> None:
        engine = self.engine
        engine.threads.add(threading.get_ident())
        if engine.fail_in == self.name:
            raise RuntimeError("out of order")
        arrays = self.bound | given
        specs = {each.name: each for each in [*self.entry.inputs, *self.entry.outputs]}
        assert {each.name for each in self.entry.inputs} <= arrays.keys() <= specs.keys()
        for name, array in arrays.items():
            assert str(array.dtype) == specs[name].dtype, name
            assert len(array.shape) == len(specs[name].shape), name
        shown = f"{self.name} {arrays['tokens'].size}" if "tokens" in arrays else self.name
        engine.calls.append(shown)
        for name, result in getattr(self, self.name)(arrays).items():
            target = arrays.get(self.entry.updates.get(name, name))
            if target is not None:
                target[...] = result

    def step(self, arrays: dict) -> dict:
        model, used = self.engine.model, int(arrays["used"][0])
        tokens, positions = arrays["tokens"][0], arrays["positions"][0]
        assert 1 <= len(tokens) <= self.engine.manifest.cache.chunk_size
        assert used + len(tokens) <= arrays["key_0"].shape[2]
        rows = [model.embedding[token] for token in tokens]
        outputs: dict = {}
        for layer in range(LAYERS):
            key, value = arrays[f"key_{layer}"][0], arrays[f"value_{layer}"][0]
            queries = np.zeros((len(tokens), HQ, D), np.float32)
            for j, row in enumerate(rows):
                q, k, v = model.project(layer, row)
                for head in range(HKV):
                    key[head, used + j] = rotated(k[head], positions[j])
                    value[head, used + j] = v[head]
                for head in range(HQ):
                    queries[j, head] = rotated(q[head], positions[j])
            for j, row in enumerate(rows):
                mixed = np.zeros((HQ, D))
                for head in range(HQ):
                    mine = head // (HQ // HKV)
                    visible = range(used + j + 1)
                    logits = [float(queries[j, head] @ key[mine, s]) / 2 for s in visible]
                    for s, weight in zip(visible, softmax(logits), strict=True):
                        mixed[head] += weight * value[mine, s]
                rows[j] = row + np.tanh(mixed.reshape(-1) @ model.o[layer])
            outputs[f"queries_{layer}"] = queries
        return outputs | {"hidden": np.array(rows, np.float32)}

    def head(self, arrays: dict) -> dict:
        hidden, following = arrays["hidden"], arrays["next_tokens"]
        assert 1 <= len(hidden) == len(following) <= HEAD_ROWS
        logits = np.float32(hidden @ self.engine.model.head)
        rows = zip(logits, following, strict=True)
        nll = [-math.log(softmax(list(row))[token]) for row, token in rows]
        return {"logits": logits[-1:], "nll": np.float32(nll)}

    def score(self, arrays: dict) -> dict:
        queries, key, start = arrays["queries"], arrays["key"][0], int(arrays["start"][0])
        attention = arrays["attention"].copy()
        for j in range(len(queries)):
            for head in range(HQ):
                mine = head // (HQ // HKV)
                visible = range(start + j + 1)
                logits = [float(queries[j, head] @ key[mine, s]) / 2 for s in visible]
                for s, weight in zip(visible, softmax(logits), strict=True):
                    attention[mine, s] += weight / (HQ // HKV)
        return {"attention_out": attention}

    def evict(self, arrays: dict) -> dict:
        self.engine.before_evict()
        key, value = arrays["key"][0], arrays["value"][0]
        used, kept, tokens, protected, left = (
            int(arrays[name][0]) for name in ("used", "kept", "tokens_read", "protected", "left")
        )
        self.engine.lefts.append(left)
        cache, budget = self.engine.manifest.cache, len(arrays["new_slots"])
        prefix = max(cache.sink_size, protected)
        assert used > budget > prefix + cache.recent_size
        out = {name: np.zeros_like(arrays[name]) for name in ("key", "value", "token_position")}
        for head in range(HKV):
            held = arrays["token_position"][head]
            places = [int(held[s]) if s < kept else s - used + tokens for s in range(used)]
            ranks = [luck(place, head) for place in places]
            if "attention" in arrays:
                ranks = list(arrays["attention"][head, :used])
            safe = [s for s in range(used) if s < prefix or s >= used - cache.recent_size]
            rest = sorted(set(range(used)) - set(safe), key=lambda s: (-ranks[s], -s))
            for new, old in enumerate(sorted(safe + rest[: budget - len(safe)])):
                moved = new - old if cache.positions == "contiguous" else 0
                out["key"][0, head, new] = rotated(key[head, old], moved)
                out["value"][0, head, new] = value[head, old]
                out["token_position"][head, new] = places[old]
        results = {f"{name}_out": array for name, array in out.items()}
        return results | {"attention_out": np.float32(0)}


class Oracle:
    """The same text read token by token; entries are records in lists, keys are never rotated."""

    def __init__(
        self, manifest: Manifest, catalyst: list[int] | None = None, prefix: int | None = None
    ) -> None:
        self.manifest, self.model, self.catalyst = manifest, FakeModel(), catalyst
        self.config = manifest.cache
        self.prefix = max(self.config.sink_size, prefix or 0)
        self.entries = [[[] for _ in range(HKV)] for _ in range(LAYERS)]
        self.tokens, self.hidden, self.cycles = 0, None, 0
        self.nll: list[float] = []

    def position(self, entry: dict, place: int) -> int:
        return place if self.config.positions == "contiguous" else entry["token"]

    def weights(self, layer: int, head: int, q: np.ndarray, position: int, entries: list) -> list:
        logits = []
        for place, entry in enumerate(entries):
            key = rotated(entry["k"], self.position(entry, place))
            logits.append(float(rotated(q, position) @ key) / 2)
        return softmax(logits)

    def forward(self, token: int, entries: list, index: int) -> tuple:
        """Hidden state and queries [layer][head]; appends to the entries."""
        row, queries = self.model.embedding[token], []
        for layer in range(LAYERS):
            q, k, v = self.model.project(layer, row)
            mixed = np.zeros((HQ, D))
            for head in range(HKV):
                new = {"token": index, "k": k[head], "v": v[head], "rank": luck(index, head)}
                entries[layer][head].append(new)
            for head in range(HQ):
                mine = entries[layer][head // (HQ // HKV)]
                position = self.position(mine[-1], len(mine) - 1)
                weights = self.weights(layer, head, q[head], position, mine)
                mixed[head] = sum(w * e["v"] for w, e in zip(weights, mine, strict=True))
            queries.append((q, position))
            row = row + np.tanh(mixed.reshape(-1) @ self.model.o[layer])
        return row, queries

    def read(self, ids: list[int]) -> None:
        reserved = 0 if self.catalyst is None else self.config.catalyst_size
        for token in ids:
            if len(self.entries[0][0]) == self.config.capacity - reserved:
                self.cycle()
            known = self.hidden is not None
            self.nll.append(-math.log(softmax(list(self.logits()))[token]) if known else 1e30)
            self.hidden, _ = self.forward(token, self.entries, self.tokens)
            self.tokens += 1

    def cycle(self) -> None:
        self.cycles += 1
        if self.catalyst is not None:
            for layer in self.entries:
                for entry in [entry for head in layer for entry in head]:
                    entry["rank"] = 0.0
            scratch = [[list(head) for head in layer] for layer in self.entries]
            for i, token in enumerate(self.catalyst):
                _, queries = self.forward(token, scratch, self.tokens + i)
                self.score(queries, scratch)
        for layer in self.entries:
            for i, head in enumerate(layer):
                layer[i] = self.select(head)

    def score(self, queries: list, entries: list) -> None:
        for layer, (q, position) in enumerate(queries):
            for head in range(HQ):
                mine = entries[layer][head // (HQ // HKV)]
                weights = self.weights(layer, head, q[head], position, mine)
                for entry, weight in zip(mine, weights, strict=True):
                    entry["rank"] += weight / (HQ // HKV)

    def select(self, entries: list) -> list:
        end = len(entries) - self.config.recent_size
        safe = entries[: self.prefix] + entries[end:]
        middle = entries[self.prefix : end]
        rest = sorted(middle, key=lambda e: (-e["rank"], -e["token"]))
        kept = safe + rest[: self.config.budget - len(safe)]
        return sorted(kept, key=lambda entry: entry["token"])

    def logits(self) -> np.ndarray:
        return self.hidden @ self.model.head

    def kept(self, layer: int) -> list:
        return [[entry["token"] for entry in head] for head in self.entries[layer]]


def tensor(name: str, role: Role, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, role=role, dtype=dtype, shape=shape)


def counter(name: str) -> TensorSpec:
    return tensor(name, Role.COUNTER, "int32", 1)


def fake_programs(dtype: str, *, reads: bool, evicts: bool) -> dict[str, ProgramEntry]:
    cache = (1, HKV, "S", D)
    caches = [
        tensor(f"{role}_{i}", role, dtype, *cache)
        for i in range(LAYERS)
        for role in (Role.KEY, Role.VALUE)
    ]
    queries = [tensor(f"queries_{i}", Role.QUERIES, "float32", "Q", HQ, D) for i in range(LAYERS)]
    attention = [tensor("attention", Role.ENTRY_SCORE, "float32", HKV, "S")] if reads else []
    key, value = tensor("key", Role.KEY, dtype, *cache), tensor("value", Role.VALUE, dtype, *cache)
    position = tensor("token_position", Role.TOKEN_POSITION, "int64", HKV, "S")

    def out(*specs: TensorSpec) -> list[TensorSpec]:
        return [tensor(f"{s.name}_out", s.role, s.dtype, *s.shape) for s in specs]

    programs = {
        "step": ProgramEntry(
            file="step.bin",
            inputs=[
                tensor("tokens", Role.TOKENS, "int64", 1, "Q"),
                tensor("positions", Role.POSITIONS, "int64", 1, "Q"),
                counter("used"),
                *caches,
            ],
            outputs=[tensor("hidden", Role.HIDDEN, "float32", "Q", H), *queries, *out(*caches)],
            updates={f"{spec.name}_out": spec.name for spec in caches},
        ),
        "head": ProgramEntry(
            file="head.bin",
            inputs=[
                tensor("hidden", Role.HIDDEN, "float32", "n", H),
                tensor("next_tokens", Role.TOKENS, "int64", "n"),
            ],
            outputs=[
                tensor("logits", Role.LOGITS, "float32", 1, VOCAB_SIZE),
                tensor("nll", Role.ENTRY_SCORE, "float32", "n"),
            ],
        ),
    }
    if reads:
        programs["score"] = ProgramEntry(
            file="score.bin",
            inputs=[
                tensor("queries", Role.QUERIES, "float32", "Q", HQ, D),
                key,
                counter("start"),
                *attention,
            ],
            outputs=out(*attention),
            updates={"attention_out": "attention"},
        )
    if evicts:
        names = ("used", "kept", "tokens_read", "protected", "left")
        slots = tensor("new_slots", Role.SLOTS, "int64", "budget")
        programs["evict"] = ProgramEntry(
            file="evict.bin",
            inputs=[key, value, position, *map(counter, names), slots, *attention],
            outputs=out(key, value, position, *attention),
            updates={"attention_out": "attention"} if reads else {},
        )
    return programs


def fake_buffers(dtype: str, cache: CacheConfig, *, reads: bool) -> list[BufferSpec]:
    shape, rows = (1, HKV, "capacity", D), cache.capacity + cache.chunk_size

    def buffer(name: str, role: Role, dtype: str, *shape: int | str, **more: object) -> BufferSpec:
        return BufferSpec(name=name, role=role, dtype=dtype, shape=shape, **more)

    found = [
        buffer("ids", Role.TOKENS, "int64", rows, saved=("kept", "used")),
        buffer("hidden", Role.HIDDEN, "float32", "hidden_rows", H, saved=("zero", "hidden_rows")),
        buffer("logits", Role.LOGITS, "float32", 1, VOCAB_SIZE),
        buffer("nll", Role.ENTRY_SCORE, "float32", "hidden_rows"),
        buffer("spare_token_position", Role.TOKEN_POSITION, "int64", HKV, "capacity", axis=1),
    ]
    for role in (Role.KEY, Role.VALUE):
        found.append(buffer(f"spare_{role}", role, dtype, *shape, axis=2))
        for i in range(LAYERS):
            whole = buffer(f"{role}_{i}", role, dtype, *shape, axis=2, saved=("zero", "used"))
            found.append(whole)
    for i in range(LAYERS):
        own = {"layer": i, "axis": 1}
        found.append(
            buffer(
                f"token_position_{i}",
                Role.TOKEN_POSITION,
                "int64",
                HKV,
                "capacity",
                saved=("zero", "kept"),
                **own,
            )
        )
        if reads:
            size = (HKV, "capacity")
            found.append(buffer(f"attention_{i}", Role.ENTRY_SCORE, "float32", *size, **own))
            found.append(buffer(f"queries_{i}", Role.QUERIES, "float32", "chunk_size", HQ, D))
    return found


def fake_schedule(positions: str, *, reads: bool, evicts: bool) -> Schedule:
    caches = {f"{kind}_{i}": f"{kind}_{i}" for i in range(LAYERS) for kind in ("key", "value")}
    bind = caches | {"tokens": ("ids", "used", "n")}
    first = "used" if positions == "contiguous" else "tokens"
    ints = {"used": "used", "positions": (first, "n")}
    step = Run(run="step", bind=bind | {"hidden": ("hidden", "one", "n")}, ints=ints)
    asked = {f"queries_{i}": (f"queries_{i}", "zero", "n") for i in range(LAYERS)}
    scores = {"attention": "attention_*"} if reads else {}
    layers = tuple(range(LAYERS))
    score = Run(
        run="score",
        each=layers,
        bind={"queries": ("queries_*", "zero", "n"), "key": "key_*", **scores},
        ints={"start": "used"},
    )
    moved = ("key", "value", "token_position")
    evict = Run(
        run="evict",
        each=layers,
        bind={name: f"{name}_*" for name in moved}
        | {f"{name}_out": f"spare_{name}" for name in moved}
        | scores,
        ints={
            **{name: name for name in ("used", "kept", "protected", "left")},
            "tokens_read": "tokens",
            "new_slots": ("zero", "budget"),
        },
        swap=tuple((f"{name}_*", f"spare_{name}") for name in moved),
    )
    ask = Block(
        over=Over(ids="catalyst", most="chunk_size"),
        do=(Run(run="step", bind=bind | asked, ints=ints), score),
        add=("used", "tokens"),
        lend=True,
    )
    keep = Block(
        do=(evict,),
        after=(("hidden", "state", "zero"),),
        set={"used": "budget", "kept": "budget", "state": "zero"},
    )
    read = Block(
        over=Over(ids="text", most="chunk_size"),
        do=(step,),
        add=("used", "tokens"),
        set={"state": "n"},
    )
    last = {"hidden": ("hidden", "state", "one"), "next_tokens": ("ids", "zero", "one")}
    every = {name: (name, "tick", "n") for name in ("hidden", "nll")}
    every["next_tokens"] = ("ids", "row", "n")
    return Schedule(
        read=(read,),
        cycle=((ask, keep) if reads else (keep,)) if evicts else (),
        logits=(Block(do=(Run(run="head", bind=last | {"logits": "logits"}),)),),
        nll=(
            Block(when=("no_state", "state"), after=(("hidden", "state", "zero"),)),
            Block(set={"tick": "zero", "row": "used"}),
            read,
            Block(
                over=Over(rows=("tick", "state"), most="head_rows"),
                do=(Run(run="head", bind=every),),
                add=("tick", "row"),
            ),
        ),
    )


def fake_manifest(
    catalyst: str | None = "sum up",
    evicts: bool = True,
    dtype: str = "float32",
    options: dict | None = None,
    stops: tuple[str, ...] = (),
    **cache: object,
) -> Manifest:
    """`catalyst`: None = the policy reads none, and goes by `luck`."""
    sizes = {"capacity": 32, "budget": 12, "chunk_size": 5, "catalyst_size": 8}
    sizes |= {"sink_size": 2, "recent_size": 3}
    config, reads = CacheConfig(**(sizes | cache)), catalyst is not None and evicts
    default = Catalyst(beginning=32)
    if catalyst != "beginning":
        default = Catalyst(ids=tuple((catalyst or "").encode())) if reads else None
    layer = LayerEntry(query_heads=HQ, kv_heads=HKV, head_size=D)
    group = Group(name="full", used="used", kept="kept", slots="capacity", layers=(0, 1))
    names = "used kept tokens n start layer protected known tick row".split()
    return Manifest(
        made_by="a test",
        target="fake",
        model=ModelEntry(
            name="fake",
            architecture="Fake",
            hidden_size=H,
            vocab_size=VOCAB_SIZE,
            layers=[layer] * LAYERS,
        ),
        cache=config,
        policy=PolicyConfig(name="fake", options=options or {}),
        constants={
            **{"zero": 0, "one": 1, "no_state": -1, "hidden_rows": config.chunk_size + 1},
            "head_rows": HEAD_ROWS,
            **{name: getattr(config, name) for name in ("capacity", "budget", "chunk_size")},
            "reserved": config.catalyst_size if reads else 0,
        },
        counters=dict.fromkeys(names, 0) | {"left": -1, "state": -1, "seed": 0},
        groups=(group,),
        buffers=tuple(fake_buffers(dtype, config, reads=reads)),
        schedule=fake_schedule(config.positions, reads=reads, evicts=evicts),
        text=TextFacts(ends=(END,), separator=tuple(b"\n\n"), stops=stops, catalyst=default),
        programs=fake_programs(dtype, reads=reads, evicts=evicts),
        passes=[],
        memory=[],
    )


@pytest.fixture
def make_artifact(tmp_path):
    """Write an artifact of the fake model; `generation` goes into generation_config.json."""

    def make(name: str = "fake.lcc", generation: dict | None = None, **options: object) -> Path:
        def fill(folder: Path) -> Manifest:
            manifest = fake_manifest(**options)
            for program in manifest.programs.values():
                (folder / program.file).write_bytes(program.file.encode())
            tiny_tokenizer().save(str(folder / "tokenizer.json"))
            config = {"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            page = {"eos_token_id": [END]} | (generation or {})
            (folder / "generation_config.json").write_text(json.dumps(page))
            return manifest

        write_artifact(tmp_path / name, fill)
        return tmp_path / name

    return make


@pytest.fixture
def make_model(make_artifact):
    """The fake model, loaded; `.engine` is a `FakeEngine`, `.folder` where it lies."""

    def make(**options: object) -> lcc.runtime.Model:
        folder = make_artifact(**options)
        engine = FakeEngine(lcc.artifact.manifest.read_manifest(folder))
        model = lcc.runtime.load(folder, engine=engine)
        model.folder = folder
        return model

    return make


@pytest.fixture
def make_session(make_model):
    """A session over the fake model; `.engine` is the engine behind it."""

    def make(load: dict | None = None, **options: object) -> lcc.runtime.Session:
        model = make_model(**options)
        session = model.session(**(load or {}))
        session.engine, session.folder = model.engine, model.folder
        return session

    return make


@pytest.fixture
def make_oracle():
    """What a session of this manifest should hold after the same tokens."""
    return Oracle
