"""Reads a million tokens with cycles, saves, loads, rewinds and questions drawn from a seed.

python docs/measure/soak.py model.lcc [--tokens 1000000] [--target tvm:cpu] [--text BOOK]
    [--native LIBRARY --engine LIBRARY] [--rope-base 10000] [--key-cycles 1000] [--oracle]
    [--processes 4] [--seed 1] [--capacity N --budget N --chunk-size N]

First it reads until there were `--key-cycles` cycles, a step at a time: after each, every key in
the cache is compared with what it was when it was written, rotated once, to the slot that it has
now. Then it does all kinds of things in turn. At 20 places the state is saved, loaded into another
session and asked the same question: answers and logits must be equal to the bit. With `--oracle`
the artifact was compiled for `reference`, too: there the eager model loads the state, reads the
same ids, and must hold the same entries and give the same logits. The resident memory at the end is
compared with that at 50,000 tokens. `--processes 4`: four of them at once on one artifact. Exits
with 1 where anything differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

import lcc.runtime
from lcc.artifact.golden_text import PARAGRAPH
from lcc.testing.native_session import Library

KEY_TOLERANCE, ORACLE_TOLERANCE, ANSWER = 1e-3, 1e-3, 6
SETTLED, MOST_GROWTH = 50_000, 16_000_000  # tokens; bytes of resident memory
SAMENESS, ORACLES = 20, 20  # places of each check
ACTIONS = {"feed": 70, "ask": 12, "rewind": 10, "save and load": 6, "distill": 2}


class Python:
    """A session of the Python runtime."""

    def __init__(self, model: Any, **sizes: Any) -> None:
        self.session = model.session(**sizes)
        self.feed, self.save, self.load = self.session.feed, self.session.save, self.session.load
        self.rewind, self.logits = self.session.rewind, self.session.next_logits
        self.kept, self.distill = self.session.kept_tokens, self.session.distill
        self.close = self.session.close

    def answer(self, prompt: list[int], count: int) -> list[int]:
        """Greedy ids, none of which ends the text."""
        how: Any = {"temperature": 0.0, "max_new_tokens": count, "eos": []}
        return list(self.session.generate_ids(prompt, **how))

    def numbers(self) -> tuple[int, int, int, int]:
        """Tokens, entries, how many can be rewound, cycles."""
        session = self.session
        return session.tokens, session.used, session.rewindable, session.stats().cycles


class Native:
    """A session of liblcc."""

    def __init__(self, model: Any, **sizes: Any) -> None:
        self.session = model.session(**{name: size or 0 for name, size in sizes.items()})
        self.feed, self.save, self.load = self.session.feed, self.session.save, self.session.load
        self.rewind, self.logits, self.kept = (
            self.session.rewind,
            self.session.logits,
            self.session.kept,
        )
        self.close = self.session.close

    def answer(self, prompt: list[int], count: int) -> list[int]:
        """Greedy ids, none of which ends the text."""
        return list(self.session.ids(prompt, count))

    def distill(self) -> None:
        """Run a cycle, where there is something to evict."""
        self.session.library("lcc_distill", self.session.handle)

    def numbers(self) -> tuple[int, int, int, int]:
        """Tokens, entries, how many can be rewound, cycles."""
        stats = self.session.stats()
        return stats.tokens, stats.used, stats.rewindable, stats.cycles


class Keys:
    """Keys as they were written, without their rotation, in float64: what each must still be.

    The largest difference so far is `worst`; `moves` is the most often that one entry has moved.
    """

    def __init__(self, base: float) -> None:
        self.base, self.worst, self.compared, self.moves = base, 0.0, 0, 0
        self.first: dict[str, dict[tuple[int, int], tuple[np.ndarray, int, int]]] = {}

    def look(self, state: Path, reader: Any, layers: int) -> None:
        """Compare what is known of the keys in a state, and note what is new."""
        with safe_open(state, "numpy") as file:
            for layer in range(layers):
                keys = file.get_tensor(f"key_{layer}")[0].astype(np.float64)  # [Hkv, used, D]
                positions = reader.kept(layer)
                plain = self._turned(keys, -1)
                old, now = self.first.get(str(layer), {}), {}
                for head, row in enumerate(positions):
                    for slot, position in enumerate(row.tolist()):
                        place = (head, position)
                        key, last, moves = old.get(place, (plain[head, slot], slot, 0))
                        if place in old:
                            error = np.abs(plain[head, slot] - key).max()
                            self.worst = max(self.worst, float(error))
                            self.compared += 1
                        now[place] = key, slot, moves + (slot != last)
                        self.moves = max(self.moves, now[place][2])
                self.first[str(layer)] = now

    def _turned(self, keys: np.ndarray, way: int) -> np.ndarray:
        """[Hkv, S, D] turned by the angles of their slots, half by half, as Llama does."""
        half = keys.shape[-1] // 2
        angles = np.outer(np.arange(keys.shape[1]), self.base ** (-np.arange(half) / half))
        cos, sin = np.cos(angles), way * np.sin(angles)
        one, other = keys[..., :half], keys[..., half:]
        return np.concatenate([one * cos - other * sin, other * cos + one * sin], -1)


class Soak:
    """One text of many tokens."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.random = arguments, random.Random(arguments.seed)
        how: Any = {"threads": 1, "verify": "size", "allow_native": True}
        loaded = lcc.runtime.load(arguments.artifact, **how)
        self.manifest, self.tokenizer = loaded.manifest, loaded.tokenizer
        self.model, self.kind = self._opened()
        names = ("capacity", "budget", "chunk_size")
        self.sizes = {name: getattr(arguments, name) for name in names}
        self.text = self._text()
        self.reader = self._session()
        self.done, self.errors = Counter[str](), list[str]()
        self.held: dict[int, int] = {}
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.oracle = self._reference() if arguments.oracle else None
        self.worst_logits = 0.0

    def _opened(self) -> tuple[Any, Any]:
        a = self.arguments
        if a.native is None:
            how: Any = {"threads": 1, "target": a.target, "allow_native": True}
            return lcc.runtime.load(a.artifact, **how), Python
        more = {"allow_native": 1} if "allow_native" in _fields() else {}
        return Library(a.native).open(a.artifact, a.engine, threads=1, **more), Native

    def _session(self) -> Any:
        return self.kind(self.model, **self.sizes)

    def _reference(self) -> Any:
        """A session of the eager model."""
        import torch

        import lcc.passes.ops
        from lcc.artifact.manifest import for_target, read_manifest
        from lcc.targets.reference import open_engine

        torch.set_num_threads(1)
        whole = read_manifest(self.arguments.artifact)
        engine = open_engine(self.arguments.artifact, for_target(whole, "reference"))
        how: Any = {"target": "reference", "engine": engine}
        return Python(lcc.runtime.load(self.arguments.artifact, **how), **self.sizes)

    def _text(self) -> list[int]:
        """Ids of a text, which is read again and again."""
        book = self.arguments.text
        text = PARAGRAPH * 3 if book is None else book.read_text(encoding="utf-8")
        return self.tokenizer.encode(text)

    def ids(self, count: int) -> list[int]:
        """So many ids from some place of the text."""
        place = self.random.randrange(len(self.text))
        return [self.text[(place + i) % len(self.text)] for i in range(count)]

    def run(self) -> dict[str, Any]:
        """Read, compare, tell."""
        begin, total = time.perf_counter(), self.arguments.tokens
        keys = self.follow_keys()
        checks = {"same answers": SAMENESS, "oracle agrees": ORACLES if self.oracle else 0}
        places = sorted(
            (self.random.randrange(self.tokens, max(total, self.tokens + 1)), name)
            for name, count in checks.items()
            for _ in range(count)
        )
        while (tokens := self.tokens) < total:
            self.note_memory()
            while places and places[0][0] <= tokens:
                getattr(self, places.pop(0)[1].replace(" ", "_"))()
            self.act(self.random.choices([*ACTIONS], [*ACTIONS.values()])[0])
        self.held[self.tokens] = self.resident
        growth = self.resident - next(iter(self.held.values()))
        if growth > MOST_GROWTH:
            self.errors.append(f"resident memory grew by {growth:,} bytes")
        return {
            "tokens": self.tokens,
            "cycles": self.cycles,
            "seconds": round(time.perf_counter() - begin),
            "resident": self.held,
            "key error": keys.worst,
            "keys compared": keys.compared,
            "most moves": keys.moves,
            "logit error": self.worst_logits,
            "done": dict(self.done),
            "errors": self.errors,
        }

    @property
    def tokens(self) -> int:
        """Of the text."""
        return self.reader.numbers()[0]

    @property
    def cycles(self) -> int:
        """Of this session."""
        return self.reader.numbers()[3]

    @property
    def resident(self) -> int:
        """Bytes."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def note_memory(self) -> None:
        """At 50,000 tokens, and at every tenth of all."""
        tokens, step = self.tokens, max(1, self.arguments.tokens // 10)
        if tokens >= SETTLED and tokens // step != max(self.held, default=-1) // step:
            self.held[tokens] = self.resident

    def follow_keys(self) -> Keys:
        """Read until there were so many cycles, and look at the keys after each step."""
        keys, state = Keys(self.arguments.rope_base), self.folder / "keys"
        step = self.arguments.chunk_size or self.manifest.cache.chunk_size
        while self.cycles < self.arguments.key_cycles:
            self.reader.feed(self.ids(self.random.randint(1, step)))
            self.reader.save(state)
            keys.look(state, self.reader, len(self.manifest.model.layers))
            self.note_memory()
        if not keys.worst <= KEY_TOLERANCE:
            self.errors.append(f"keys are off by {keys.worst}")
        return keys

    def act(self, name: str) -> None:
        """One of the things that a session is for."""
        self.done[name] += 1
        if name == "feed":
            self.reader.feed(self.ids(self.random.choice([1, 3, 17, 100, 400, 1000])))
        elif name == "ask":
            self.reader.answer(self.ids(self.random.randint(1, 12)), ANSWER)
        elif name == "rewind":
            self.reader.rewind(self.random.randint(0, self.reader.numbers()[2]))
        elif name == "distill":
            if self.reader.numbers()[1] > (self.arguments.budget or self.manifest.cache.budget):
                self.reader.distill()
        else:
            before = self.reader.numbers()[:3]
            self.reader.save(self.folder / "state")
            self.reader.load(self.folder / "state")
            if self.reader.numbers()[:3] != before:
                self.errors.append(f"loaded {self.reader.numbers()}, saved {before}")

    def same_answers(self) -> None:
        """What is loaded elsewhere says the same, to the bit."""
        self.done["same answers"] += 1
        other, state, question = self._session(), self.folder / "same", self.ids(9)
        self.reader.save(state)
        other.load(state)
        told = [(each.answer(question, ANSWER), each.logits()) for each in (self.reader, other)]
        if told[0][0] != told[1][0] or told[0][1].tobytes() != told[1][1].tobytes():
            self.errors.append(f"another answer after load at {self.tokens} tokens")
        other.close()

    def oracle_agrees(self) -> None:
        """The eager model reads on as this session does."""
        self.done["oracle"] += 1
        state, ids = self.folder / "oracle", self.ids(self.manifest.cache.capacity)
        self.reader.save(state)
        self.oracle.load(state)
        for each in (self.reader, self.oracle):
            each.feed(ids)
        for layer in range(len(self.manifest.model.layers)):
            mine, wanted = self.reader.kept(layer), self.oracle.kept(layer)
            if mine.shape != wanted.shape or (mine != wanted).any():
                self.errors.append(f"layer {layer} holds other entries at {self.tokens} tokens")
        error = float(np.abs(self.reader.logits() - self.oracle.logits()).max())
        self.worst_logits = max(self.worst_logits, error)
        if not error <= ORACLE_TOLERANCE:
            self.errors.append(f"logits are off by {error} at {self.tokens} tokens")


def _fields() -> list[str]:
    from lcc.testing.native_session import ModelOptions

    return [field[0] for field in ModelOptions._fields_]


def main() -> None:
    """One soak in this process, or several in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--target")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--native", type=Path)
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--rope-base", type=float, default=10_000.0)
    parser.add_argument("--key-cycles", type=int, default=1000)
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("capacity", "budget", "chunk-size"):
        parser.add_argument(f"--{name}", type=int)
    arguments = parser.parse_args()
    if arguments.processes == 1:
        told = Soak(arguments).run()
        print(json.dumps(told))
        sys.exit(1 if told["errors"] else 0)
    flags = sys.argv[1:]
    place = flags.index("--processes")
    del flags[place : place + 2]
    running = [
        subprocess.Popen([sys.executable, __file__, *flags, "--seed", str(arguments.seed + i)])
        for i in range(arguments.processes)
    ]
    sys.exit(max(abs(process.wait()) for process in running))


if __name__ == "__main__":
    main()
