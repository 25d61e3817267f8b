"""Entry scores: the numbers kept with each entry, and who makes them.

A new one is a line here, its producer, and the policy that reads it.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EntryScore:
    """A number of every entry of a full layer, float32.

    made_by     "log": one number a token, the same for all heads and layers when it is made, in a
                log of the tokens since the last cycle; the entries that stay keep theirs.
                "step": the step writes one a KV head where the entry lies.
                "queries": attention that queries pay, one a KV head, or one for all.
                "position": computed in the evict program from the token position
    for_all     of "queries": the mean over all KV heads and layers, made anew each cycle
    """

    name: str
    made_by: Literal["log", "step", "queries", "position"]
    for_all: bool = False


NLL = EntryScore("nll", "log")  # negative log likelihood of the token, nats
SENTENCE = EntryScore("sentence", "log")  # token position where its sentence begins, modulo 2**24
EXPECTED = EntryScore("expected", "log")  # attention that retaining heads expect, averaged over all
RETAINING = EntryScore("retaining", "step")  # what the layer's retaining heads say
ATTENTION = EntryScore("attention", "queries")  # what queries pay it, per KV head
AGREED = EntryScore("agreed", "queries", for_all=True)  # the same, averaged over all
NOISE = EntryScore("noise", "position")  # uniform in [0, 1)

FIRST_NLL = 1e30  # of the token that begins a text, which nothing predicts
SENTENCE_MODULUS = 1 << 24  # whole numbers that float32 tells apart
