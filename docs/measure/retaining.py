"""Retaining heads beside other policies: what is found of what was read, and what is predicted.

python docs/measure/retaining.py OUT.jsonl ESSAYS --artifact locret.lcc --artifact infinipot.lcc ...
python docs/measure/retaining.py OUT.jsonl --table

Twenty samples a cell, of texts of 4K tokens: passkey (a depth each), niah_multikey_1 and
niah_multikey_2 (five texts, four of their keys asked for after one reading). With --first the
question stands before the text, which is read anew for each. Perplexity: of 512 tokens, at ten
places beyond the 16,000th of each of two texts. A cell that OUT.jsonl has already is not measured
again.
"""

import argparse
import collections
import itertools
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from passkey import common_length

import lcc.runtime
from lcc.measure.evaluate.haystack import read_haystack
from lcc.measure.evaluate.sample import Sample, evenly
from lcc.measure.evaluate.tasks import TASKS
from lcc.runtime.session import Session

NEEDLE = re.compile(r"One of the special magic numbers for (\S+) is: (\d+)\.")
BUDGETS = (512, 1024)
CELLS = ("passkey", "niah_multikey_1", "niah_multikey_2", "perplexity")
Asked = tuple[str, str, str]  # question, prefix of the answer, answer


def texts(
    encode: Callable[[str], list[int]], task: str, tokens: int, sentences: list[str]
) -> Iterator[Sample]:
    """The texts of a task."""

    def count(text: str) -> int:
        return len(encode(text))

    if task == "passkey":
        for seed, depth in enumerate(evenly(20)):
            yield TASKS[task].make(count, tokens, depth, seed, sentences)
    for seed, depth in enumerate(evenly(5)):
        if task.startswith("niah_multikey"):
            yield TASKS[task].make(count, tokens, depth, seed, sentences)


def asked(sample: Sample, task: str) -> list[Asked]:
    """The questions of a text: of one with many keys, four."""
    if task == "passkey":
        return [(sample.question, sample.answer_prefix, sample.answers[0])]
    pairs = NEEDLE.findall(sample.context)
    counted = collections.Counter(key for key, _ in pairs)
    pairs = [pair for pair in pairs if counted[pair[0]] == 1]
    chosen = random.Random(sample.context[:999]).sample(pairs, 4)
    (own,) = (key for key, value in pairs if value == sample.answers[0])
    return [
        (sample.question.replace(own, key), sample.answer_prefix.replace(own, key), value)
        for key, value in chosen
    ]


def found(session: Session, questions: list[Asked]) -> int:
    """How many of the questions are answered, each from the same state."""
    right = 0
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "read.lccstate")
        if len(questions) > 1:
            session.save(state)
        for place, (question, prefix, answer) in enumerate(questions):
            if place:
                session.load(state)
            written = session.generate(f"\n{question} {prefix}", max_new_tokens=12)
            right += answer in "".join(written)
    return right


def ask_all(
    session: Session, task: str, tokens: int, sentences: list[str], *, first: bool
) -> dict[str, float]:
    """One cell of a task with questions. What a text shares with the next one is read once."""
    reads: list[tuple[list[int], list[Asked]]] = []
    for sample in texts(session.encode, task, tokens, sentences):
        questions = asked(sample, task)
        if first:
            with_it = [(f"{each[0]}\n{sample.context}", [each]) for each in questions]
            reads += [(session.encode(context), group) for context, group in with_it]
        else:
            reads.append((session.encode(sample.context), questions))
    shared = [common_length(a[0], b[0]) for a, b in itertools.pairwise(reads)]
    begin, right = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        state, done = Path(folder, "shared.lccstate"), 0
        for (ids, questions), common in zip(reads, [*shared, 0], strict=True):
            session.reset()
            if done:
                session.load(state)
            if common > max(done, tokens // 50):
                session.feed(ids[done:common], prefix=False)
                session.save(state)
            done = common if common > tokens // 50 else 0
            session.feed(ids[session.tokens :], prefix=False, last=True)
            right += found(session, questions)
    total, seconds = sum(len(questions) for _, questions in reads), time.perf_counter() - begin
    return {"found": right, "of": total, "seconds": round(seconds, 1)}


def predict(session: Session, tokens: int, sentences: list[str]) -> dict[str, float]:
    """The cell of a perplexity: mean and standard error of its logarithm over twenty places."""
    values = []
    for seed in range(2):
        start = random.Random(f"perplexity {seed}").randrange(len(sentences))
        turned = sentences[start:] + sentences[:start]
        ids = session.encode(" ".join(turned[:4000]))
        session.reset()
        session.feed(ids[: tokens - 512], prefix=False)
        for place in range(tokens, tokens + 10 * 1024, 1024):
            values.append(float(session.nll(ids[place - 512 : place]).mean(dtype=np.float64)))
            session.feed(ids[place : place + 512])
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return {"perplexity": math.exp(mean), "error": float(error), "of": len(values)}


def read_cells(out: Path) -> dict[tuple, dict]:
    """What was measured."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    pages = [json.loads(line) for line in lines]
    return {(p["artifact"], p["task"], p["budget"], p["first"]): p for p in pages}


def show(cells: dict[tuple, dict]) -> None:
    """The table in Markdown."""
    columns = [(t, b, False) for b in BUDGETS for t in CELLS]
    columns += [(t, b, True) for b in BUDGETS for t in CELLS[:3]]
    for first in (False, True):
        chosen = [column for column in columns if column[2] == first]
        print("\n| policy |", " | ".join(f"{t}, {b}" for t, b, _ in chosen), "|")
        print("| --- |" + " --- |" * len(chosen))
        for name in dict.fromkeys(key[0] for key in cells):
            row = []
            for task, budget, _ in chosen:
                cell = cells.get((name, task, budget, first))
                if cell is None:
                    row.append("-")
                elif task == "perplexity":
                    row.append(f"{cell['perplexity']:.2f}")
                else:
                    row.append(f"{cell['found']} of {cell['of']}")
            print(f"| `{name}` |", " | ".join(row), "|")


def main() -> None:
    """Measure cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("haystack", type=Path, nargs="?")
    parser.add_argument("--artifact", type=Path, action="append", default=[])
    parser.add_argument("--budget", type=int, action="append")
    parser.add_argument("--task", choices=CELLS, action="append")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--first", action="store_true", help="the question before the text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    options = parser.parse_args()
    if options.table:
        show(read_cells(options.out))
        return
    sentences = read_haystack(options.haystack)
    for budget in options.budget or BUDGETS:
        for task in options.task or CELLS:
            for path in options.artifact:
                key = (path.stem, task, budget, options.first)
                if key in read_cells(options.out) or (options.first and task == "perplexity"):
                    continue
                session = lcc.runtime.open(path, budget=budget, threads=options.threads)
                if task == "perplexity":
                    cell = predict(session, 16384, sentences)
                else:
                    cell = ask_all(session, task, options.tokens, sentences, first=options.first)
                names = ("artifact", "task", "budget", "first")
                page = dict(zip(names, key, strict=True)) | cell
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(page) + "\n")
                print(json.dumps(page), flush=True)


if __name__ == "__main__":
    main()
