"""What fewer bits lose: how far the predictions of a model are from those of another."""

import numpy as np


def divergence(logits: np.ndarray, wanted: np.ndarray) -> float:
    """KL(wanted || logits) of the next token in nats, the mean over the rows of [n, V]."""
    ours, theirs = log_softmax(logits), log_softmax(wanted)
    return float((np.exp(theirs) * (theirs - ours)).sum(axis=1).mean())


def perplexity(logits: np.ndarray, ids: list[int]) -> float:
    """Of a text, from the logits [n, V] behind each of its n tokens."""
    chosen = log_softmax(logits[:-1])[np.arange(len(ids) - 1), ids[1:]]
    return float(np.exp(-chosen.mean()))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
