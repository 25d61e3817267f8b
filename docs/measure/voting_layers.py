"""Which layers know what a question asks for: the place of the wanted sentence in their ranking.

python docs/measure/voting_layers.py model.lcc --haystack ESSAYS [--tasks niah_multikey_1]
    [--length 8192] [--samples 2] [--theta 1000000]

A text is read with an archive; then every layer ranks all archived sentences by what the question
pays them, as a recall does with the layers that vote. What is printed is how many tokens come back
before the last of the wanted sentences is whole: by each layer, and by several together.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import lcc.runtime
from lcc.measure.evaluate.haystack import read_haystack
from lcc.measure.evaluate.sample import Sample, evenly
from lcc.measure.evaluate.tasks import TASKS
from lcc.measure.evaluate.turn import asked, user_turn
from lcc.runtime.session import Session


def column(session: Session, name: str) -> np.ndarray:
    """A column of the archive as a whole."""
    archive, count = session._executor.archive, session._executor.numbers["archived"]
    assert archive is not None
    spec = next(each for each in session.manifest.archive if each.name == name)
    out = np.zeros((count, *spec.shape), spec.dtype)
    archive.read(name, 0, out)
    return out


def turned_back(queries: np.ndarray, start: int, theta: float) -> np.ndarray:
    """[P, Hq, D]: queries of positions start, start + 1, ... at 0, 1, ..."""
    half = queries.shape[2] // 2
    angle = start * theta ** (-np.arange(half) / half)
    a, b = queries[..., :half], queries[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate((a * cos + b * sin, b * cos - a * sin), axis=-1)


def layer_votes(session: Session, layer: int, asking: int, start: int, theta: float) -> np.ndarray:
    """[Hkv, N]: what a layer's KV heads pay to each row."""
    keys = column(session, f"key_{layer}")
    queries = session._executor.buffers.rows(f"queries_{layer}", 0, asking)
    queries = turned_back(queries.astype(np.float32), start, theta)
    heads, size = keys.shape[1:]
    group = queries.shape[1] // heads
    votes = np.zeros((heads, len(keys)))
    for head in range(heads):
        mine = queries[:, head * group : (head + 1) * group].reshape(-1, size)
        logits = mine @ keys[:, head].T / np.sqrt(size)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        votes[head] = (shares / shares.sum(1, keepdims=True)).max(0)
    return votes


def before(votes: np.ndarray, sentence: np.ndarray, wanted: list[int]) -> int:
    """Tokens of the best sentences until all the wanted ones are among them."""
    numbers, of = np.unique(sentence, return_inverse=True)
    count = np.bincount(of)
    order = np.argsort(-np.bincount(of, votes) / count)
    ends = dict(zip(numbers[order].tolist(), np.cumsum(count[order]).tolist(), strict=True))
    return max(ends[each] for each in wanted)


def wanted_sentences(session: Session, sample: Sample, text: str) -> list[int]:
    """Where the sentences begin that hold the answers."""
    position, sentence = column(session, "position"), column(session, "sentence")
    begins = dict(zip(position.tolist(), sentence.tolist(), strict=True))
    places = [len(session.encode(text[: text.index(each)])) + 1 for each in sample.answers]
    return [begins[place] for place in places if place in begins]


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--haystack", type=Path, required=True)
    parser.add_argument("--tasks", default="niah_multikey_1,niah_multivalue")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--theta", type=float, default=1e6, help="base of the model's rotation")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    sentences = read_haystack(args.haystack)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "a.lccarchive")
        session = lcc.runtime.open(args.artifact, threads=args.threads, archive=path)
        layers = len(session.manifest.model.layers)
        start, after = user_turn(session)
        for task in args.tasks.split(","):
            for seed, depth in enumerate(evenly(args.samples)):
                make = TASKS[task].make
                sample = make(lambda t: len(session.encode(t)), args.length, depth, seed, sentences)
                session.reset()
                session.feed(start + sample.context, prefix=not start, last=True)
                question = session.encode(asked(sample, after))
                used = session.used
                session._executor.recall(question)
                asking = min(len(question), session._executor.sizes.catalyst_size)
                votes = [layer_votes(session, i, asking, used, args.theta) for i in range(layers)]
                begins = column(session, "sentence")
                wanted = wanted_sentences(session, sample, start + sample.context)
                half = range(layers // 2, layers)
                spread = [half[i * len(half) // 4] for i in range(4)]
                sets = {"all": range(layers), "later half": half, f"{spread}": spread}
                print(f"{task}, seed {seed}, {len(begins):,} tokens")
                for name, some in sets.items():
                    mean = np.concatenate([votes[i] for i in some]).mean(0)
                    print(f"    {name}: {before(mean, begins, wanted)}")
                each = [before(v.mean(0), begins, wanted) for v in votes]
                print("    by layer:", *each, flush=True)


if __name__ == "__main__":
    main()
