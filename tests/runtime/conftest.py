"""A model in NumPy and loops behind the `Engine` protocol, and an oracle that reads one by one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import lcc.runtime
from lcc.artifact.folder import write_artifact
from lcc.artifact.manifest import LayerEntry, Manifest, ModelEntry, ProgramEntry, TensorEntry
from lcc.config import CacheConfig, PolicyConfig
from lcc.runtime.noise import noise
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


class Model:
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

    def novelty(self, hidden: np.ndarray, token: int) -> float:
        return -math.log(softmax(list(hidden @ self.head))[token])


def rank(attention: float, novelty: float, noise: float) -> float:
    """What the pretended policy keeps; any formula that uses all three does."""
    return 3 * attention + 0.1 * novelty + noise


class FakeEngine:
    """The contract of the programs, by loops; records calls, and that buffers stay the same."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.model = manifest, Model()
        self.calls: list[str] = []
        self.rows: list[int] = []  # of each step, those whose queries were asked for
        self.scored: list[int] = []  # of each call of a score program, its queries
        self.fail_in: str | None = None
        self.runners = {name: FakeRunner(self, name) for name in manifest.programs}

    def zeros(self, shape: tuple, dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)

    def runner(self, program: str) -> "FakeRunner":
        return self.runners[program]


class FakeRunner:
    def __init__(self, engine: FakeEngine, name: str) -> None:
        self.engine, self.name = engine, name
        self.bound: dict[str, np.ndarray] = {}
        self.results: dict[str, np.ndarray] = {}

    def bind(self, arrays: dict) -> None:
        self.bound |= arrays

    def __call__(self, feeds: dict, fetch: tuple = ()) -> dict:
        engine = self.engine
        if engine.fail_in == self.name:
            raise RuntimeError("out of order")
        arrays = self.bound | feeds
        entry = engine.manifest.programs[self.name]
        assert {tensor.name for tensor in entry.inputs} <= arrays.keys()
        assert feeds.keys() <= {tensor.name for tensor in entry.inputs}
        for tensor in entry.inputs:
            assert str(arrays[tensor.name].dtype) == tensor.dtype, tensor.name
        for result in self.results.values():  # valid until the next call only
            result[...] = -1
        engine.calls.append(
            f"{self.name} {arrays['tokens'].size}" if "tokens" in feeds else self.name
        )
        program = {"prefill_chunk": self.step, "decode": self.step, "head": self.head}
        program |= {"score_0": self.score, "evict_0": self.evict}
        self.results = program[self.name](arrays)
        for name in self.results.keys() & self.bound.keys():
            self.bound[name][...] = self.results[name]
        return {name: self.results[name] for name in fetch}

    def step(self, arrays: dict) -> dict:
        model, used = self.engine.model, int(arrays["used"][0])
        tokens, positions = arrays["tokens"][0], arrays["positions"][0]
        assert 1 <= len(tokens) <= self.engine.manifest.cache.chunk_size
        assert used + len(tokens) <= arrays["key_0"].shape[2]
        self.engine.rows += [len(arrays[name]) for name in ("query_rows",) if name in arrays]
        rows = [model.embedding[token] for token in tokens]
        outputs: dict = {}
        for layer in range(LAYERS):
            key, value = arrays[f"key_{layer}"][0], arrays[f"value_{layer}"][0]
            queries = np.zeros((HQ, len(tokens), D), np.float32)
            for j, row in enumerate(rows):
                q, k, v = model.project(layer, row)
                for head in range(HKV):
                    key[head, used + j] = rotated(k[head], positions[j])
                    value[head, used + j] = v[head]
                for head in range(HQ):
                    queries[head, j] = rotated(q[head], positions[j])
            for j, row in enumerate(rows):
                mixed = np.zeros((HQ, D))
                for head in range(HQ):
                    mine = head // (HQ // HKV)
                    visible = range(used + j + 1)
                    logits = [float(queries[head, j] @ key[mine, s]) / 2 for s in visible]
                    for s, weight in zip(visible, softmax(logits), strict=True):
                        mixed[head] += weight * value[mine, s]
                rows[j] = row + np.tanh(mixed.reshape(-1) @ model.o[layer])
            if "query_rows" in arrays:
                queries = queries[:, arrays["query_rows"]]
            outputs[f"queries_{layer}"] = queries
        outputs["hidden"] = np.array([rows], np.float32)
        return outputs

    def head(self, arrays: dict) -> dict:
        model, hidden = self.engine.model, arrays["hidden"]
        assert 1 <= len(hidden) <= 32
        novelty = [
            model.novelty(row, token)
            for row, token in zip(hidden, arrays["next_tokens"], strict=True)
        ]
        logits = np.float32(hidden[-1:] @ model.head)
        return {"logits": logits, "novelty": np.array(novelty, np.float32)}

    def score(self, arrays: dict) -> dict:
        queries, key, start = arrays["queries"], arrays["key"][0], int(arrays["start"][0])
        attention = np.zeros(key.shape[:2], np.float32)
        self.engine.scored.append(queries.shape[1])
        for head in range(HQ):
            mine = head // (HQ // HKV)
            for j in range(queries.shape[1]):
                visible = range(start + j + 1)
                logits = [float(queries[head, j] @ key[mine, s]) / 2 for s in visible]
                for s, weight in zip(visible, softmax(logits), strict=True):
                    attention[mine, s] += weight / (HQ // HKV)
        return {"attention": attention}

    def evict(self, arrays: dict) -> dict:
        key, value = arrays["key"][0], arrays["value"][0]
        used, prefix, recent = (int(arrays[name][0]) for name in ("used", "prefix", "recent"))
        budget = len(arrays["new_slots"])
        assert used > budget > prefix + recent
        kept = np.zeros((HKV, budget), np.int64)
        kept_key, kept_value = (np.zeros((1, HKV, budget, D), np.float32) for _ in range(2))
        for head in range(HKV):
            ranks = [
                rank(*(arrays[n][head, s] if n in arrays else 0.0 for n in NUMBERS))
                for s in range(used)
            ]
            safe = [s for s in range(used) if s < prefix or s >= used - recent]
            rest = sorted(set(range(used)) - set(safe), key=lambda s: -ranks[s])
            kept[head] = sorted(safe + rest[: budget - len(safe)])
            for new, old in enumerate(kept[head]):
                moved = new - old if self.engine.manifest.cache.positions == "contiguous" else 0
                kept_key[0, head, new] = rotated(key[head, old], moved)
                kept_value[0, head, new] = value[head, old]
        return {"kept": kept, "kept_key": kept_key, "kept_value": kept_value}


NUMBERS = ("attention", "novelty", "noise")


class Oracle:
    """The same text read token by token; entries are records in lists, keys are never rotated."""

    def __init__(self, manifest: Manifest, catalyst: list[int], prefix: int | None = None) -> None:
        self.manifest, self.model, self.catalyst = manifest, Model(), catalyst
        self.config = manifest.cache
        self.prefix = max(self.config.sink_size, prefix or 0)
        self.entries = [[[] for _ in range(HKV)] for _ in range(LAYERS)]
        self.tokens, self.hidden, self.cycles = 0, None, 0
        self.queries: list = []

    def position(self, entry: dict, place: int) -> int:
        return place if self.config.positions == "contiguous" else entry["token"]

    def weights(self, layer: int, head: int, q: np.ndarray, position: int, entries: list) -> list:
        logits = []
        for place, entry in enumerate(entries):
            key = rotated(entry["k"], self.position(entry, place))
            logits.append(float(rotated(q, position) @ key) / 2)
        return softmax(logits)

    def forward(self, token: int, entries: list, index: int, novelty: float) -> tuple:
        """Hidden state and queries [layer][head]; appends to the entries."""
        row, queries = self.model.embedding[token], []
        for layer in range(LAYERS):
            q, k, v = self.model.project(layer, row)
            mixed = np.zeros((HQ, D))
            for head in range(HKV):
                number = noise(0, LAYERS, HKV, index, 1)[layer, head, 0]
                new = {"token": index, "k": k[head], "v": v[head], "attention": 0.0}
                entries[layer][head].append(new | {"novelty": novelty, "noise": number})
            for head in range(HQ):
                mine = entries[layer][head // (HQ // HKV)]
                position = self.position(mine[-1], len(mine) - 1)
                weights = self.weights(layer, head, q[head], position, mine)
                mixed[head] = sum(w * e["v"] for w, e in zip(weights, mine, strict=True))
            queries.append((q, position))
            row = row + np.tanh(mixed.reshape(-1) @ self.model.o[layer])
        return row, queries

    def read(self, ids: list[int]) -> None:
        reserved = self.config.catalyst_size if self.manifest.queries == "catalyst" else 0
        for token in ids:
            if len(self.entries[0][0]) == self.config.capacity - reserved:
                self.cycle()
            novelty = 1e30 if self.hidden is None else self.model.novelty(self.hidden, token)
            self.hidden, queries = self.forward(token, self.entries, self.tokens, novelty)
            self.tokens += 1
            if self.manifest.queries == "all":
                self.score(queries, self.entries)
            self.queries.append((queries, len(self.entries[0][0])))

    def score(self, queries: list, entries: list, seen: int | None = None) -> None:
        for layer, (q, position) in enumerate(queries):
            for head in range(HQ):
                mine = entries[layer][head // (HQ // HKV)][:seen]
                weights = self.weights(layer, head, q[head], position, mine)
                for entry, weight in zip(mine, weights, strict=True):
                    entry["attention"] += weight / (HQ // HKV)

    def cycle(self) -> None:
        self.cycles += 1
        memory = self.manifest.policy.memory
        for layer in self.entries:
            for head in layer:
                for entry in head:
                    entry["attention"] *= memory if self.manifest.queries != "all" else 1
        if self.manifest.queries == "catalyst":
            scratch = [[list(head) for head in layer] for layer in self.entries]
            for i, token in enumerate(self.catalyst):
                _, queries = self.forward(token, scratch, self.tokens + i, 0.0)
                self.score(queries, scratch)
        if self.manifest.queries == "recent":
            for queries, seen in self.queries[-64:]:
                self.score(queries, self.entries, seen)
        self.queries = []
        for layer in self.entries:
            for i, head in enumerate(layer):
                layer[i] = self.select(head)

    def select(self, entries: list) -> list:
        end = len(entries) - self.config.recent_size
        safe = entries[: self.prefix] + entries[end:]
        names = self.manifest.scalars
        rest = sorted(
            entries[self.prefix : end],
            key=lambda e: -rank(*(e[n] if n in names else 0.0 for n in NUMBERS)),
        )
        kept = safe + rest[: self.config.budget - len(safe)]
        return sorted(kept, key=lambda entry: entry["token"])

    def logits(self) -> np.ndarray:
        return self.hidden @ self.model.head

    def kept(self, layer: int) -> list:
        return [[entry["token"] for entry in head] for head in self.entries[layer]]


def fake_manifest(
    scalars: tuple = ("attention", "novelty"),
    queries: str | None = "catalyst",
    memory: float = 0.0,
    catalyst: str = "sum up",
    query_pool: str = "sum",
    evicts: bool = True,
    chooses_rows: bool = True,
    dtype: str = "float32",
    **cache: object,
) -> Manifest:
    sizes = {"capacity": 32, "budget": 12, "chunk_size": 5, "catalyst_size": 8}
    sizes |= {"sink_size": 2, "recent_size": 3}

    def tensors(**shapes: tuple) -> list[TensorEntry]:
        kinds = {"tokens": "int64", "positions": "int64", "next_tokens": "int64"}
        kinds |= {"used": "int32", "start": "int32", "prefix": "int32", "recent": "int32"}
        kinds |= {"new_slots": "int64", "kept": "int64", "query_rows": "int64"}
        kinds |= {name: dtype for name in shapes if name.startswith(("key", "value", "kept_"))}
        return [
            TensorEntry(name=name, dtype=kinds.get(name, "float32"), shape=list(shape))
            for name, shape in shapes.items()
        ]

    caches = {f"{kind}_{i}": (1, HKV, "S", D) for i in range(LAYERS) for kind in ("key", "value")}
    out = {f"{name}_out": shape for name, shape in caches.items()}
    rows = {"query_rows": ("R",)} if queries and chooses_rows else {}
    count = "R" if rows else "Q"
    asked = {f"queries_{i}": (HQ, count, D) for i in range(LAYERS)} if queries else {}
    step = ProgramEntry(
        file="step.bin",
        inputs=tensors(tokens=(1, "Q"), positions=(1, "Q"), used=(1,), **rows, **caches),
        outputs=tensors(hidden=(1, "Q", H), **asked, **out),
        updates={f"{name}_out": name for name in caches},
    )
    entry = {"key": (1, HKV, "S", D), "value": (1, HKV, "S", D)}
    programs = {
        "prefill_chunk": step,
        "decode": step,
        "head": ProgramEntry(
            file="head.bin",
            inputs=tensors(hidden=("n", H), next_tokens=("n",)),
            outputs=tensors(logits=(1, VOCAB_SIZE), novelty=("n",)),
        ),
    }
    if queries:
        programs["score_0"] = ProgramEntry(
            file="score.bin",
            inputs=tensors(queries=(HQ, "n", D), key=(1, HKV, "S", D), start=(1,)),
            outputs=tensors(attention=(HKV, "S")),
        )
    if evicts:
        programs["evict_0"] = ProgramEntry(
            file="evict.bin",
            inputs=tensors(
                **entry,
                used=(1,),
                prefix=(1,),
                recent=(1,),
                new_slots=("budget",),
                **dict.fromkeys(scalars, (HKV, "S")),
            ),
            outputs=tensors(
                kept=(HKV, "budget"),
                kept_key=(1, HKV, "budget", D),
                kept_value=(1, HKV, "budget", D),
            ),
        )
    layer = LayerEntry(
        query_heads=HQ,
        kv_heads=HKV,
        head_size=D,
        evict="evict_0" if evicts else None,
        score="score_0" if queries else None,
    )
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
        cache=CacheConfig(**(sizes | cache)),
        policy=PolicyConfig(name="fake", memory=memory, catalyst=catalyst, query_pool=query_pool),
        scalars=list(scalars),
        queries=queries,
        programs=programs,
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
def make_session(make_artifact):
    """A session over the fake model; `.engine` is the engine behind it."""

    def make(load: dict | None = None, **options: object) -> lcc.runtime.Session:
        folder = make_artifact(**options)
        engine = FakeEngine(lcc.artifact.manifest.read_manifest(folder))
        session = lcc.runtime.load(folder, engine=engine, **(load or {}))
        session.engine, session.folder = engine, folder
        return session

    return make


@pytest.fixture
def make_oracle():
    """What a session of this manifest should hold after the same tokens."""
    return Oracle
