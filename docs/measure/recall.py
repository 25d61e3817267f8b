"""What a recall brings back: RULER's tasks with and without it, after one reading of each text.

python docs/measure/recall.py model.lcc --haystack ESSAYS [--tasks niah_multikey_1,vt]
    [--length 8192] [--samples 10] [--seeds 4,9] [--dtype float16] [--rounded float16,int8]
    [--every-key] [--out lines.jsonl]

Each line of the output is a question: the scores of the answer without and with recall, how many of
the wanted answers the cache held for each, what the archive takes on disk, how long reading and
recall took. The question is not known while the text is read.

With --every-key, each text of `niah_multikey_1` is asked for each of its four numbers: four samples
of one reading. With --rounded, a question recalls once for each of these dtypes: the archive is in
float32, and gives its rows back as one of that dtype would. An artifact that evicts nothing has no
archive, and answers once.
"""

import argparse
import dataclasses
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import lcc.runtime
from lcc.artifact.manifest import read_manifest
from lcc.measure.evaluate.catalog import score, settled
from lcc.measure.evaluate.haystack import read_haystack
from lcc.measure.evaluate.sample import Sample, evenly
from lcc.measure.evaluate.tasks import TASKS
from lcc.measure.evaluate.turn import asked, user_turn
from lcc.runtime.archive.eight_bits import quantize, restore
from lcc.runtime.session import Session
from lcc.runtime.text.writing import GREEDY

NEEDLE = re.compile(r"One of the special magic numbers for (\S+) is: (\d+)\.")
ROUNDED = {
    "float32": lambda rows: rows,
    "float16": lambda rows: rows.astype(np.float16),
    "int8": lambda rows: restore(*quantize(rows)),
}


def answer(session: Session, sample: Sample, after: str, *, recall: bool) -> tuple[float, str]:
    """Score and words of an answer to the sample's question."""
    words = ""
    question, limit = asked(sample, after), sample.max_new_tokens
    for piece in session.generate(question, max_new_tokens=limit, recall=recall, **GREEDY):
        words += piece
        if settled(words, sample):
            break
    return score(words, sample), words


def held(session: Session, sample: Sample, text: list[int], first: int) -> int:
    """How many of the wanted answers are in the cache, each with all of its tokens.

    text        ids of what was read, behind the first `first` ones
    """
    kept, count = set(session.kept_tokens(0)[0].tolist()), 0
    for ids in map(session.encode, sample.answers):
        places = (i for i in range(len(text)) if text[i : i + len(ids)] == ids)
        count += any(kept.issuperset(range(first + i, first + i + len(ids))) for i in places)
    return count


def round_rows(session: Session, dtype: str) -> None:
    """Let the archive give keys and values back as one of this dtype would."""
    archive = session._executor.archive
    assert archive is not None
    exact = type(archive)._of_block

    def rounded(block: int, column: str, rows: slice | np.ndarray) -> np.ndarray:
        found = exact(archive, block, column, slice(archive.archive.count(block)))
        return (ROUNDED[dtype](found) if found.ndim == 3 else found)[rows]

    archive._of_block = rounded  # type: ignore[method-assign]


def questions(sample: Sample, *, every_key: bool) -> list[Sample]:
    """The sample's question; or the same about each of the keys whose single numbers are hidden."""
    pairs = NEEDLE.findall(sample.context)
    wanted = [key for key, value in pairs if (value,) == sample.answers]
    if not every_key or len(wanted) != 1:
        return [sample]
    return [
        dataclasses.replace(
            sample,
            question=sample.question.replace(wanted[0], key),
            answer_prefix=sample.answer_prefix.replace(wanted[0], key),
            answers=(value,),
        )
        for key, value in pairs
    ]


def lines(session: Session, args: argparse.Namespace, folder: Path) -> Iterator[dict]:
    """One line a question."""
    sentences = read_haystack(args.haystack) if args.haystack else []
    before, after = user_turn(session, raw=args.raw)
    depths = list(evenly(args.samples))
    seeds = [int(each) for each in args.seeds.split(",")] if args.seeds else range(args.samples)
    for seed, task in [(seed, task) for seed in seeds for task in args.tasks.split(",")]:
        make = TASKS[task].make
        sample = make(lambda t: len(session.encode(t)), args.length, depths[seed], seed, sentences)
        session.reset()
        begin = time.perf_counter()
        session.feed(before + sample.context, prefix=not before, last=True)
        seconds, text = time.perf_counter() - begin, session.encode(before + sample.context)
        line = {"task": task, "length": args.length, "seed": seed, "tokens": session.tokens}
        manifest = session.manifest
        line |= {"budget": args.budget or manifest.cache.budget}
        line |= {"nll_weight": manifest.policy.options.get("nll_weight")}
        line |= {"read_seconds": round(seconds, 1), "wanted": len(sample.answers)}
        session.save(folder / "state")
        first = session.tokens - len(text)
        for number, each in enumerate(questions(sample, every_key=args.every_key)):
            line["asked"] = number
            if session.stats().archive_rows is None:
                session.load(folder / "state")
                line["everything"], line["answer"] = answer(session, each, after, recall=False)
                yield line
                continue
            for dtype in ["without", *(args.rounded.split(",") if args.rounded else ["recall"])]:
                session.load(folder / "state")
                before_it = session.stats().recall_seconds
                if dtype in ROUNDED:
                    round_rows(session, dtype)
                name = f"recall_{dtype}" if dtype in ROUNDED else dtype
                recall = dtype != "without"
                if not recall:
                    line["held_without"] = held(session, each, text, first)
                line[name], line[f"answer_{name}"] = answer(session, each, after, recall=recall)
                if recall:
                    stats = session.stats()
                    line[f"held_{name}"] = held(session, each, text, first)
                    line[f"seconds_{name}"] = round(stats.recall_seconds - before_it, 2)
                    line |= {"recalled": stats.recalled, "archive_bytes": stats.archive_bytes}
            yield line


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--haystack", type=Path)
    parser.add_argument("--tasks", default="niah_single_2,niah_multikey_1,niah_multivalue")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--seeds", help="of the samples that are run; default: all")
    parser.add_argument("--budget", type=int)
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float16", help="of keys and values in the archive")
    parser.add_argument("--rounded", help="dtypes to round them to, in turn")
    parser.add_argument("--every-key", action="store_true", help="ask for each key of a text")
    parser.add_argument("--raw", action="store_true", help="no chat template")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sizes = {"budget": args.budget, "capacity": args.capacity}
    scores: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        if read_manifest(args.artifact).archive:
            dtype = "float32" if args.rounded else args.dtype
            sizes |= {"archive": Path(place, "a.lccarchive"), "archive_dtype": dtype}
        session = lcc.runtime.open(args.artifact, threads=args.threads, allow_native=True, **sizes)
        for line in lines(session, args, Path(place)):
            for name in line:
                if name in ("without", "everything") or name.split("_")[0] == "recall":
                    scores.setdefault((line["task"], name), []).append(line[name])
            print(json.dumps(line), flush=True)
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    for (task, name), some in sorted(scores.items()):
        print(f"{task:20} {len(some)} samples  {name:15} {statistics.mean(some):.2f}")


if __name__ == "__main__":
    main()
