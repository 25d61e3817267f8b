"""How surprising each token was, found when a cycle, a state file or a caller asks."""

from collections.abc import Sequence

import numpy as np

from lcc.config import HEAD_ROWS
from lcc.runtime.engines.base import Runner
from lcc.runtime.kv_cache import zeros

FIRST_NOVELTY = 1e30  # of a token that nothing came before: higher than any other


class Novelty:
    """The hidden states before the tokens that were read since the last cycle, as they wait.

    Novelty is minus the log probability of a token (NuC of InfiniPot, arXiv 2410.01518). It takes
    the LM head's product for every token, and nobody asks for it where no cycle follows.

    hidden  [tokens, h] float32, the state before each token
    known   of how many of these tokens, from the first, it is known
    """

    def __init__(self, head: Runner, tokens: int, hidden_size: int) -> None:
        """`tokens`: the most that are read between two cycles; 0 where none has to wait."""
        self._head = head
        self.hidden = zeros((tokens, hidden_size))
        self.known = 0

    def wait(self, place: int, hidden: np.ndarray) -> None:
        """Keep the states [n, h] before n tokens, the first of which is number `place`."""
        self.hidden[place : place + len(hidden)] = hidden

    def rest(self, ids: Sequence[int], *, first: bool) -> np.ndarray:
        """[n] float32 of the tokens of which it was not known; `ids`, `first`: of all of them."""
        hidden = self.hidden[self.known : len(ids)]
        novelty = self.of(hidden, ids[self.known :], first=first and self.known == 0)
        self.known = len(ids)
        return novelty

    def of(self, hidden: np.ndarray, ids: Sequence[int], *, first: bool) -> np.ndarray:
        """[n] float32, in nats, of each token given the states [n, h] float32 before them.

        first   the first of them is the text's, and nothing comes before it
        """
        following = np.asarray(ids, np.int64)
        result = np.empty(len(ids), np.float32)
        for start in range(0, len(ids), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            feeds = {"hidden": hidden[part], "next_tokens": following[part]}
            result[part] = self._head(feeds, ["novelty"])["novelty"]
        if first:
            result[0] = FIRST_NOVELTY
        return result
