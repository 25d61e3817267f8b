"""When a needle leaves the cache, and what the cache holds instead at the end.

python docs/measure/follow_needle.py m.lcc ESSAYS --index 13 --budget 512 --capacity 1024

Reads sample `index` of the twenty that `lcc eval --tasks niah_single_2 --samples 20` makes, and
prints how many tokens of the needle the first head of the first layer holds, whenever that changes.
"""

import argparse
import itertools
from pathlib import Path

import lcc.runtime
from lcc.measure.evaluate.catalog import TASKS
from lcc.measure.evaluate.haystack import read_haystack
from lcc.measure.evaluate.sample import evenly
from lcc.runtime.session import Session

AROUND = 15  # tokens of the needle before its number


def kept(session: Session) -> list[int]:
    """Places in the text of what the first head of the first layer holds."""
    return [int(place) for place in session.kept_tokens(0)[0] if place >= 0]


def main() -> None:
    """Follow one needle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("haystack", type=Path)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--length", type=int, default=65536)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    sizes = {"budget": options.budget, "capacity": options.capacity}
    session = lcc.runtime.open(options.artifact, threads=options.threads, **sizes)
    depth = list(evenly(20))[options.index]
    sample = TASKS["niah_single_2"].make(
        lambda text: len(session.encode(text)),
        options.length,
        depth,
        options.index,
        read_haystack(options.haystack),
    )
    ids, number = session.encode(sample.context), session.encode(sample.answers[0])
    end = len(number)
    at = next(i for i in range(len(ids)) if ids[i : i + end] == number)
    needle = set(range(at - AROUND, at + end))
    print(f"{sample.answers[0]} at token {at} of {len(ids)}, depth {depth:.0f} %")
    before = None
    for start in range(0, len(ids), 1024):
        session.feed(ids[start : start + 1024], last=start + 1024 >= len(ids))
        held = len(needle & set(kept(session)))
        if held != before and session.tokens > at + end:
            print(f"{session.tokens:7} tokens read: {held} of {len(needle)} of the needle held")
            before = held
    pieces = itertools.groupby(enumerate(kept(session)), lambda pair: pair[1] - pair[0])
    for places in ([place for _, place in piece] for _, piece in pieces):
        text = session.tokenizer.decode([ids[place] for place in places])
        print(f"{places[0]:7} {text[:120]!r}")
    print("answer:", "".join(session.generate(sample.asked, max_new_tokens=12)))


if __name__ == "__main__":
    main()
