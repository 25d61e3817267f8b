"""Perplexity of the end of a text: the model's own where nothing is evicted."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import lcc.runtime
from lcc.errors import LccError
from lcc.measure.evaluate.perplexity import by_position, last_tokens, pieces
from lcc.testing.tiny import tiny_model

SENTENCES = [f"Sentence {number} says {'so ' * (number % 7)}much." for number in range(90)]


def test_perplexity_is_the_models(tiny_artifact: Path) -> None:
    session = lcc.runtime.open(tiny_artifact)
    ids = pieces(session.encode, SENTENCES, 60, samples=1)[0]
    with torch.no_grad():
        logits = tiny_model("llama")(torch.tensor([ids])).logits[0]
    wanted = torch.nn.functional.cross_entropy(logits[39:-1], torch.tensor(ids[40:]))
    assert last_tokens(session, ids, 20) == pytest.approx(math.exp(wanted), rel=1e-4)
    with pytest.raises(LccError, match="count is 60, wanted fewer tokens"):
        last_tokens(session, ids, 60)


def test_pieces_are_texts_of_their_own(tiny_artifact: Path) -> None:
    session = lcc.runtime.open(tiny_artifact)
    texts = pieces(session.encode, SENTENCES, 1500, samples=3)
    assert [len(ids) for ids in texts] == [1500] * 3
    assert len({tuple(ids[:50]) for ids in texts}) == 3
    assert texts == pieces(session.encode, SENTENCES, 1500, samples=3)


def test_no_text_is_read_twice(tiny_artifact: Path) -> None:
    session = lcc.runtime.open(tiny_artifact)
    everything = len(session.encode(" ".join(SENTENCES) + " "))
    assert len(pieces(session.encode, SENTENCES, everything - 9, samples=1)[0]) == everything - 9
    with pytest.raises(LccError, match=r"haystack has [\d,]+ tokens, wanted [\d,]+ or more"):
        pieces(session.encode, SENTENCES, everything + 9, samples=1)


def test_by_position() -> None:
    nats = np.array([1e30, 1, 2, 3, 4, 5, 6, 7, 8], np.float32)
    assert by_position(nats, 4) == [(3, 1.5), (5, 3.5), (7, 5.5), (9, 7.5)]
    assert by_position(nats[:3]) == [(2, 1), (3, 2)], "fewer tokens than parts"
