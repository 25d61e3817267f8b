"""Damages files of every kind, uses each in a process of its own, and says how that ended.

python -m lcc.testing.fuzz FOLDER [--count 12000] [--seed 1] [--kinds state,archive] [--case N]
python -m lcc.testing.fuzz FOLDER --known [--only TEXT]

Whatever a file holds, its use must work, or end in an LccError of one line: no other exception, no
signal, no 10 s of CPU, no gigabyte of memory. Sizes and hashes are made to fit the damage, as one
would who means harm. FOLDER keeps the good files, which are made when they are missing, in some
minutes, and results_SEED_FIRST.jsonl. A case is a function of seed and number: `--case` runs one,
and leaves what it was run with in FOLDER/work_SEED_0. `--known` runs files that were found or
thought of before (known*.py), most of which must be refused.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from lcc.testing.fuzz import known, of_artifacts, of_sessions, of_sources
from lcc.testing.fuzz.forked import Ending, run
from lcc.testing.fuzz.goods import Goods, make
from lcc.testing.fuzz.mutant import Mutant
from lcc.testing.fuzz.uses import use_artifact, use_golden, use_source

# How often each kind is drawn.
KINDS = {"artifact": 50, "golden": 4, "state": 24, "archive": 8, "gguf": 7, "checkpoint": 7}
OUTCOMES = ("refused", "same", "other", "exception", "message", "memory", "crash", "hang")
BAD = OUTCOMES[3:]
Row = dict[str, Any]


def main() -> None:
    """Make good files, damage them, print a table; exit code 1 where anything ended badly."""
    arguments = _arguments()
    kinds = arguments.kinds.split(",")
    folder = arguments.folder.resolve()
    scratch = folder / f"work_{arguments.seed}_{arguments.first}"
    scratch.mkdir(parents=True, exist_ok=True)
    names = arguments.goods.split(",") if arguments.goods else None
    _import_all(kinds, names)
    if arguments.artifact is None:
        make(folder, kinds)
    elif not (folder / "given.lcc").exists():
        shutil.copytree(arguments.artifact, folder / "given.lcc")
    goods = Goods(folder, kinds, scratch, names)
    goods.use_once()
    fuzzer = Fuzzer(goods, arguments.seed, kinds)
    if arguments.known:
        sys.exit(1 if _known(fuzzer, arguments.only) else 0)
    if arguments.case is not None:
        print(json.dumps(fuzzer.case(arguments.case), indent=1))
        print((scratch / "log").read_text(errors="replace")[-6000:])
        return
    rows, end = [], time.monotonic() + arguments.seconds
    with (folder / f"results_{arguments.seed}_{arguments.first}.jsonl").open("w") as file:
        for number in range(arguments.first, arguments.first + arguments.count):
            if time.monotonic() > end:
                break
            rows.append(fuzzer.case(number))
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    _print(rows)
    sys.exit(1 if any(row["outcome"] in BAD for row in rows) else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after them")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--case", type=int)
    parser.add_argument("--goods", help="of the artifacts it compiles, these; the default is all")
    parser.add_argument("--known", action="store_true", help="run hostile files, by name")
    parser.add_argument("--only", help="of these, those whose names hold a text")
    parser.add_argument("--artifact", type=Path, help="the only one, in place of those it compiles")
    return parser.parse_args()


def _import_all(kinds: list[str], names: list[str] | None) -> None:
    """What children need, once."""
    for name in ("jinja2.sandbox", "onnx", "onnxruntime", "tokenizers"):
        importlib.import_module(name)
    if {"gguf", "checkpoint"} & {*kinds} or "reference" in (names or ()):
        import torch

        importlib.import_module("gguf")
        importlib.import_module("transformers")
        torch.set_num_threads(1)


def _known(fuzzer: "Fuzzer", only: str | None) -> int:
    """Run them all; how many ended as they must not."""
    failed, count = 0, 0
    for kind, name in fuzzer.known_files():
        if only is not None and only not in f"{kind}: {name}":
            continue
        ending, must = fuzzer.known(kind, name), known.KINDS[kind][name][1]
        fine = ending.outcome == "refused" or (ending.outcome == "works" and not must)
        count, failed = count + 1, failed + (not fine)
        if not fine or only is not None:
            print(f"{kind}: {name!r}: {ending.outcome} at {ending.step}, {ending.seconds:.1f} s,")
            print(f"    {ending.kind} {ending.place} {ending.text[:300]!r}", flush=True)
    print(f"{count} hostile files, {failed} ended badly")
    return failed


class Fuzzer:
    """Draws cases and runs them."""

    def __init__(self, goods: Goods, seed: int, kinds: list[str]) -> None:
        self.goods, self.seed = goods, seed
        self.kinds = {kind: KINDS[kind] for kind in kinds}

    def case(self, number: int) -> Row:
        """One damaged file."""
        random = Random(f"{self.seed}:{number}")
        kind = random.choices([*self.kinds], [*self.kinds.values()])[0]
        if kind in ("artifact", "golden"):
            good, damage, said, ending = self._artifact(kind, random)
        elif kind in ("state", "archive"):
            good, damage, said, ending = self._session(kind, random)
        else:
            good, damage, said, ending = self._source(kind, random)
        row = {"case": number, "what": kind, "damage": damage, "said": said[:300]} | asdict(ending)
        row["good"] = "/".join(Path(each).name for each in _parts(good) if each)
        output = row.pop("output")
        if ending.outcome == "works":
            row["outcome"] = "same" if output == self.goods.output(kind, good) else "other"
        return row

    def known_files(self) -> Iterator[tuple[str, str]]:
        """Kinds and names of hostile files, of those kinds that there is a good file of."""
        goods = {"state": self.goods.states, "gguf": self.goods.sources["gguf"]}
        for kind, cases in known.KINDS.items():
            if goods.get(kind, self.goods.artifacts):
                yield from ((kind, name) for name in cases)

    def known(self, kind: str, name: str) -> Ending:
        """A hostile file by its name."""
        change, scratch = known.KINDS[kind][name][0], self.goods.scratch
        if kind == "gguf":
            place = scratch / "mutant.gguf"
            place.write_bytes(change(self.goods.sources["gguf"][0].read_bytes()))
            return run(partial(use_source, place), self.goods.log)
        if kind == "state":
            mine = [each for each in self.goods.states if each[0] == self._changed()]
            good = next(each for each in mine if each[1].name == "cycled")
            place = scratch / "mutant.lccstate"
            place.write_bytes(known.state_bytes(name, good[1].read_bytes()))
            return run(self.goods.state_job(good, place, None), self.goods.log)
        mutant = Mutant(self._changed(), scratch / "mutant.lcc")
        change(mutant)
        return run(partial(use_artifact, mutant.folder, scratch), self.goods.log)

    def _changed(self) -> Path:
        """The artifact that the hostile ones are made of: they change what `consensus` has."""
        artifacts = self.goods.artifacts
        return next((each for each in artifacts if each.stem == "consensus"), artifacts[0])

    def _artifact(self, kind: str, random: Random) -> tuple[Any, str, str, Ending]:
        good = self.goods.artifact(random)
        self.goods.output(kind, good)
        mutant = Mutant(good, self.goods.scratch / "mutant.lcc")
        damage = random.choices([*of_artifacts.DAMAGES], [*of_artifacts.DAMAGES.values()])[0]
        if kind == "golden":
            damage = of_artifacts.goldens
        said = damage(mutant, random)
        use = partial(use_artifact, mutant.folder, self.goods.scratch)
        if kind == "golden" or said.startswith("golden.json"):
            use = partial(use_golden, mutant.folder)
        return good, damage.__name__, said, run(use, self.goods.log)

    def _session(self, kind: str, random: Random) -> tuple[Any, str, str, Ending]:
        some = [each for each in self.goods.states if each[2] or kind == "state"]
        good = random.choice(some)
        damages = of_sessions.STATES if kind == "state" else of_sessions.ARCHIVES
        damage = random.choices([*damages], [*damages.values()])[0]
        state, archive = good[1], None
        if kind == "state":
            state = self.goods.scratch / "mutant.lccstate"
            state.write_bytes(damage(good[1].read_bytes(), random))
        if good[2] is not None and (kind == "archive" or random.random() < 0.5):
            archive = self.goods.scratch / "mutant.lccarchive"
            data = good[2].read_bytes()
            archive.write_bytes(damage(data, random) if kind == "archive" else data)
        job = self.goods.state_job(good, state, archive)
        return good, damage.__name__, "", run(job, self.goods.log)

    def _source(self, kind: str, random: Random) -> tuple[Any, str, str, Ending]:
        good = random.choice(self.goods.sources[kind])
        mutant = self.goods.scratch / ("mutant.gguf" if kind == "gguf" else "mutant")
        if kind == "gguf":
            shutil.copyfile(good, mutant)
        else:
            shutil.rmtree(mutant, ignore_errors=True)
            shutil.copytree(good, mutant)
        damages = of_sources.GGUF if kind == "gguf" else of_sources.CHECKPOINTS
        damage = random.choices([*damages], [*damages.values()])[0]
        said = damage(mutant, random)
        return good, damage.__name__, said, run(partial(use_source, mutant), self.goods.log)


def _parts(good: Any) -> tuple[Any, ...]:
    return good[:2] if isinstance(good, tuple) else (good,)


def _print(rows: list[Row]) -> None:
    print(f"{'kind':10} {'damage':18} cases", *OUTCOMES)
    groups = sorted({(row["what"], row["damage"]) for row in rows})
    for group in [*groups, None]:
        mine = [row for row in rows if group in (None, (row["what"], row["damage"]))]
        counts = Counter(row["outcome"] for row in mine)
        name = "{:10} {:18}".format(*(group or ("all", "")))
        print(name, f"{len(mine):5}", *(f"{counts[each]:{len(each)}}" for each in OUTCOMES))
    if rows:
        most = max(row["held_bytes"] for row in rows), max(row["seconds"] for row in rows)
        print(f"most memory {most[0] / 1e6:.0f} MB, most time {most[1]:.1f} s of CPU")
    found: dict[Any, list[Row]] = {}
    for row in rows:
        if row["outcome"] in BAD:
            key = (row["outcome"], row["kind"], row["place"], row["step"])
            found.setdefault(key, []).append(row)
    for key, mine in sorted(found.items(), key=lambda item: -len(item[1])):
        first = mine[0]
        print(f"{len(mine)} x {' '.join(map(str, key))}: case {first['case']}, {first['good']},")
        print(f"    {first['damage']}: {first['said'][:120]}: {first['text'][:160]!r}")


if __name__ == "__main__":
    os.umask(0o077)
    main()
