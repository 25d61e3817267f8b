"""What a cache holds of a text after its cycles, against the same tokens read anew.

python docs/measure/read_anew.py m.lcc none.lcc ESSAYS --task number_string --samples 40

Both are asked the same question. Where one of them answers, it matters what the entries saw when
they were read; where neither does, the choice of tokens does, or the model. Policies whose heads
keep different tokens are refused. Prints a line a sample and the counts.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

import lcc.runtime
from lcc.measure.evaluate.catalog import TASKS, score
from lcc.measure.evaluate.haystack import read_haystack
from lcc.measure.evaluate.sample import Sample, evenly
from lcc.runtime.session import Session


def kept(session: Session) -> list[int]:
    """Places in the text of what all heads of all layers hold."""
    layers = [session.kept_tokens(i) for i in range(len(session.manifest.model.layers))]
    first = layers[0][0]
    if not all(np.array_equal(places, first) for layer in layers for places in layer):
        raise SystemExit("heads keep different tokens; wanted policy consensus or sink_window")
    return [int(place) for place in first]


def right(session: Session, sample: Sample) -> bool:
    """Whether the question is answered from what is held now."""
    answer = "".join(session.generate(sample.asked, max_new_tokens=sample.max_new_tokens))
    return score(answer, sample) == 1


def main() -> None:
    """Ask both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("whole", help="the same model compiled with --policy none")
    parser.add_argument("haystack", type=Path)
    parser.add_argument("--task", default="number_string", choices=TASKS)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    sizes = {"budget": options.budget, "capacity": options.capacity}
    session = lcc.runtime.open(options.artifact, threads=options.threads, **sizes)
    whole = lcc.runtime.open(options.whole, threads=options.threads)
    sentences, counts = read_haystack(options.haystack), Counter[tuple[bool, bool]]()
    for i, depth in enumerate(evenly(options.samples)):
        sample = TASKS[options.task].make(
            lambda text: len(session.encode(text)), options.length, depth, i, sentences
        )
        ids = session.encode(sample.context)
        session.reset()
        session.feed(ids, last=True)
        places = kept(session)
        held = [ids[place] for place in places]
        wanted = session.encode(sample.answers[0])
        end = len(wanted)
        at = next(place for place in range(len(ids)) if ids[place : place + end] == wanted)
        there = len({*range(at, at + end)} & {*places})
        whole.reset()
        whole.feed(held, last=True)
        both = right(session, sample), right(whole, sample)
        counts[both] += 1
        print(
            f"{depth:3.0f} %, {len(held)} of {len(ids)} held, of the answer {there} of {end}: "
            f"cache, anew = {both}",
            flush=True,
        )
    print(
        f"both right {counts[True, True]}, the cache alone {counts[True, False]}, "
        f"anew alone {counts[False, True]}, neither {counts[False, False]}"
    )


if __name__ == "__main__":
    main()
