"""Passkey in noise at great length, ten depths for the price of five.

python docs/measure/passkey.py model.lcc --tokens 131072 [--samples 10] [--threads 2]

The texts of all depths are the same noise up to their keys. What two of them share is read once:
the state before the shallower key is saved, and loaded again for the next depth. A line a sample.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import lcc.runtime
from lcc.evaluate.metrics import METRICS
from lcc.evaluate.sample import evenly
from lcc.evaluate.tasks.infinitebench import passkey


def common_length(a: list[int], b: list[int]) -> int:
    """How many ids two texts have in common at their beginning."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def main() -> None:
    """Read, ask, go back, read on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--tokens", type=int, default=131072)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    session = lcc.runtime.load(options.artifact, threads=options.threads)

    def count(text: str) -> int:
        return len(session.encode(text))

    samples = [passkey(count, options.tokens, d, i) for i, d in enumerate(evenly(options.samples))]
    texts = [session.encode(sample.context) for sample in samples]
    shared = [common_length(a, b) for a, b in itertools.pairwise(texts)]
    found = read = 0
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "shared.lccstate")
        for sample, ids, common in zip(samples, texts, [*shared, 0], strict=True):
            if state.exists():
                session.load(state)
            if common > read:
                session.feed(ids[read:common])
                session.save(state)
                read = common
            session.feed(ids[session.tokens :])
            question = f"\n{sample.question} {sample.answer_prefix}"
            answer = "".join(session.generate(question, max_new_tokens=24))
            found += METRICS[sample.metric](answer, sample.answers) == 1
            print(
                f"{len(ids)} tokens, depth {sample.depth:.0f} %: wanted {sample.answers[0]}, "
                f"answered {answer!r}",
                flush=True,
            )
    print(f"found {found} of {len(samples)}")


if __name__ == "__main__":
    main()
