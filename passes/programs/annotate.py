"""The program `annotate`: what a policy wants to know of the entries read since the last cycle.

No weights but a bit for each token of the vocabulary: whether it ends a sentence.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.policies.entry_scores import FIRST_NLL, NLL, SENTENCE, SENTENCE_MODULUS, EntryScore

LONGEST = 64  # tokens of a sentence; text without punctuation is cut there


class Annotate(nn.Module):
    """Entry scores of the tokens in slots kept .. used-1, in rows of their slots.

    ids         [S] int64       token ids
    used, kept  [1] int32       entries held, and those that the last cycle left
    tokens_read [1] int64       tokens of the text read so far
    nll         [S] float32     negative log likelihood, from the head
    sentence    [S] float32     row `kept`: where the sentence of that token begins

    gives, of those that are wanted,
    nll_out         the same, but 1e30 for the token that begins the text
    sentence_out    [S] float32: token position, modulo 2**24, where the sentence of each token
                    begins; row `used`: that of the next token, as far as it is known

    A sentence ends with a token that ends in punctuation or holds a line end, and after 64 tokens.
    """

    def __init__(self, scores: Sequence[EntryScore], ends: Tensor | None) -> None:
        """`ends`: [V] bool, whether a token ends a sentence; None where nobody asks."""
        super().__init__()
        self.scores = [each for each in (NLL, SENTENCE) if each in scores]
        self.ends: Tensor | None
        self.register_buffer("ends", None if ends is None else ends.float())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs in the order of the class's list."""
        ids, used, kept, tokens_read, *logs = inputs
        slot = torch.arange(ids.shape[0])
        position = slot - used + tokens_read
        results = []
        for each, log in zip(self.scores, logs, strict=True):
            if each == NLL:
                results.append(torch.where(position == 0, FIRST_NLL, log))
            else:
                results.append(self._sentence(ids, slot, position, used, kept, log))
        return tuple(results)

    def _sentence(
        self,
        ids: Tensor,
        slot: Tensor,
        position: Tensor,
        used: Tensor,
        kept: Tensor,
        sentence: Tensor,
    ) -> Tensor:
        assert self.ends is not None
        ended = functional.pad(self.ends.index_select(0, ids)[:-1], (1, 0))  # by the token before
        begins = (ended > 0) & (slot > kept) & (slot <= used)
        first = slot == kept
        place = position % SENTENCE_MODULUS
        run = begins.long().cumsum(0)[None]  # [1, S]: runs between ends are numbered from 0
        begin = torch.where(first, sentence, torch.where(begins, place.float(), 0.0))[None]
        begin = torch.zeros_like(begin).scatter_add(1, run, begin).gather(1, run)[0].long()
        ago = (place - begin) % SENTENCE_MODULUS
        return ((place - ago % LONGEST) % SENTENCE_MODULUS).float()


def annotate_program(
    scores: Sequence[EntryScore], ends: Tensor | None, *, rows: int
) -> Program | None:
    """Export `Annotate` for a log of so many rows; None where no score is made so."""
    module = Annotate(scores, ends)
    if not module.scores:
        return None
    one = torch.zeros(1, dtype=torch.int32)
    inputs = [
        Input(Port("ids", Role.TOKENS), torch.zeros(rows, dtype=torch.int64)),
        Input(Port("used", Role.COUNTER), one),
        Input(Port("kept", Role.COUNTER), one.clone()),
        Input(Port("tokens_read", Role.COUNTER), one.long()),
        *(Input(Port(each.name, Role.ENTRY_SCORE), torch.zeros(rows)) for each in module.scores),
    ]
    outputs = [Port(f"{each.name}_out", Role.ENTRY_SCORE) for each in module.scores]
    updates = {f"{each.name}_out": each.name for each in module.scores}
    return export(module, ("annotate",), inputs, outputs, updates)
