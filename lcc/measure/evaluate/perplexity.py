"""How well a long text is predicted from what was kept of it: its end, and place by place."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lcc.errors import LccError
from lcc.measure.evaluate.haystack import joined

if TYPE_CHECKING:
    from lcc.runtime.session import Session

_AT_ONCE = 200  # sentences that are encoded in one go


def last_tokens(session: Session, ids: list[int], count: int = 512) -> float:
    """Perplexity of the last `count` of these token ids, read in an empty session.

    The cycles in between are those of any reading; the last ones may fall within the `count`.
    """
    if not 0 < count < len(ids):
        raise LccError(f"count is {count}, wanted fewer tokens than the text has ({len(ids)})")
    session.reset()
    session.feed(ids[:-count], prefix=False)
    return math.exp(float(session.nll(ids[-count:]).mean(dtype=np.float64)))


def by_position(nats: np.ndarray, parts: int = 16) -> list[tuple[int, float]]:
    """Mean of [n] float32 nats over `parts` equal stretches of a text, each with its end.

    The first token, which nothing predicts, does not count; few tokens make fewer parts.
    """
    edges = np.unique(np.linspace(1, len(nats), parts + 1).astype(int)).tolist()
    return [
        (end, float(nats[start:end].mean(dtype=np.float64)))
        for start, end in itertools.pairwise(edges)
    ]


def pieces(
    encode: Callable[[str], list[int]],
    sentences: list[str],
    length: int,
    samples: int,
    first_seed: int = 0,
) -> list[list[int]]:
    """Token ids of `samples` texts of `length` tokens, each from a place of its own, by a seed.

    Raises:
        LccError: the sentences have fewer tokens: what is read a second time is easy to predict.
    """
    texts = []
    for seed in range(first_seed, first_seed + samples):
        start = random.Random(f"perplexity {seed}").randrange(len(sentences))
        around, ids = sentences[start:] + sentences[:start], list[int]()
        for first in range(0, len(around), _AT_ONCE):
            ids += encode(joined(around[first : first + _AT_ONCE]))
            if len(ids) >= length:
                break
        else:
            raise LccError(
                f"the haystack has {len(ids):,} tokens, wanted {length:,} or more for perplexity: "
                "give a longer --haystack, or shorter --lengths"
            )
        texts.append(ids[:length])
    return texts
