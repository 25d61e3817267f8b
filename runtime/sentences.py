"""Where sentences begin, told from token ids alone, so that an eviction can keep whole ones."""

from collections.abc import Sequence

import numpy as np

from lcc.runtime.text.tokenizer import Tokenizer

LONGEST = 64  # tokens; text without punctuation is cut there
_ENDS = (".", "!", "?", "。", "！", "？", "…")
_CLOSING = " \"')]}»”’*_"
NUMBERS = 1 << 24  # whole numbers that float32 tells apart


class Sentences:
    """Gives every token the number of its sentence: the place of the sentence's first token.

    A sentence ends with a token that ends in punctuation or holds a line end, and after 64 tokens.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """Look at every token of the vocabulary once."""
        texts = tokenizer.vocabulary(vocab_size)
        self.ends = np.array(
            ["\n" in text or text.rstrip(_CLOSING).endswith(_ENDS) for text in texts], bool
        )

    def starts(
        self, ids: Sequence[int], first: int, previous: int | None, start: int
    ) -> np.ndarray:
        """[n] float32: where the sentence of each token begins, modulo 2**24.

        ids         n new tokens
        first       place of the first of them in the text
        previous    id of the token before them; None = there is none
        start       where that token's sentence begins, modulo 2**24
        """
        starts = np.empty(len(ids), np.float32)
        ended = previous is None or bool(self.ends[previous])
        for i, token in enumerate(ids):
            place = (first + i) % NUMBERS
            if ended or (place - start) % NUMBERS >= LONGEST:
                start = place
            starts[i] = start
            ended = bool(self.ends[token])
        return starts
