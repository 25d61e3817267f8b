"""What a recall must do, in loops over Python's own numbers; see `lcc.testing.oracles`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lcc.testing.oracles import rotate
from lcc.testing.selection import Vector, dot


@dataclass
class Archived:
    """One token: its place in the text, where its sentence begins, keys [layer][Hkv][D], and nats.

    1e30 nats are those of a token that nothing predicts.
    """

    position: int
    sentence: int
    keys: list[list[Vector]]
    nll: float = 1e30


def votes(
    rows: Sequence[Archived],
    queries: Sequence[Sequence[Sequence[Vector]]],
    frequencies: Vector,
    scale: float,
    *,
    sinks: Sequence[Vector] | None = None,
) -> list[float]:
    """What a question pays to each row: one softmax over all rows for each of its queries.

    queries     [voting layer][token][Hq], rotated by nothing; token j asks from position j
    sinks       [voting layer][Hq], one more logit

    The largest share over tokens and the heads of a group, the mean over all KV heads and layers.
    """
    totals, count = [0.0] * len(rows), 0
    for layer, of_layer in enumerate(queries):
        heads = len(rows[0].keys[layer])
        group = len(of_layer[0]) // heads
        for head in range(heads):
            best = [0.0] * len(rows)
            for place, token in enumerate(of_layer):
                for mine in range(head * group, (head + 1) * group):
                    query = rotate(token[mine], place, frequencies)
                    logits = [scale * dot(query, row.keys[layer][head]) for row in rows]
                    more = [] if sinks is None else [sinks[layer][mine]]
                    top = max([*logits, *more])
                    total = math.fsum(math.exp(x - top) for x in [*logits, *more])
                    shares = [math.exp(x - top) / total for x in logits]
                    best = [max(pair) for pair in zip(best, shares, strict=True)]
            totals = [sum(pair) for pair in zip(totals, best, strict=True)]
            count += 1
    return [each / count for each in totals]


def choose(
    rows: Sequence[Archived],
    paid: Sequence[float],
    *,
    budget: int,
    stay: Sequence[int],
    newest: int,
    floor: float = 0.0,
) -> list[int]:
    """Token positions of what comes back, ascending.

    stay        positions of what stays where it is, which takes of the budget
    newest      rows from this position on come back whatever was paid to them
    floor       no other sentence of fewer than half a nat a token comes back that is worth less
                than this share of the best one

    Sentences by the mean of what was paid to their rows, the newest rows first where they tie.
    """
    sums: dict[int, list[float]] = {}
    for row, vote in zip(rows, paid, strict=True):
        sums.setdefault(row.sentence, []).append(vote)
    mean = {sentence: math.fsum(each) / len(each) for sentence, each in sums.items()}
    nats: dict[int, list[float]] = {}
    for row in rows:
        nats.setdefault(row.sentence, []).append(0.0 if row.nll >= 1e30 else min(row.nll, 30.0))
    noise = {
        sentence
        for sentence, each in nats.items()
        if math.fsum(each) / len(each) < 0.5 and mean[sentence] < floor * max(mean.values())
    }
    left = [
        row
        for row in rows
        if row.position not in set(stay) and (row.position >= newest or row.sentence not in noise)
    ]

    def worth(row: Archived) -> tuple[bool, float, int]:
        return row.position >= newest, mean[row.sentence], row.position

    best = sorted(left, key=worth, reverse=True)[: max(0, budget - len(stay))]
    return sorted(row.position for row in best)
