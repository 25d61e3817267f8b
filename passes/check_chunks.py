"""The last word on a rewritten model: read in chunks, it gives the logits of the captured one.

The passes recognise attention, masks and rotations one by one. What they do not look at may still
carry something from token to token (a convolution, a shift, angles that depend on the length of the
text), and it would be lost between two chunks. So both graphs are run, on random tokens.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lcc.errors import PassError
from lcc.ir.roles import Role
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, shape

CHUNKS = (7, 1, 29)  # tokens, uneven on purpose
TOLERANCE = 1e-3  # of the largest logit


class CheckChunks(Pass):
    """Changes nothing; compares a lifted graph with the captured one.

    Requires    LiftKVCache has run, HybridLayers has not: what a plan changes changes the logits.
    """

    required = False

    def __init__(
        self,
        captured: ModelGraph,
        *,
        longest: int | None = None,
        later: list[Callable[[], None]] | None = None,
    ) -> None:
        """See `check_chunks`; with `later` the comparison is put there, for whoever may read."""
        self.captured, self.longest, self.later = captured, longest, later

    def requires(self, graph: ModelGraph) -> None:
        """The same logits, whole or in chunks."""
        check = functools.partial(check_chunks, self.captured, graph, longest=self.longest)
        if self.later is None:
            check()
        else:
            self.later.append(check)

    def rewrite(self, graph: ModelGraph) -> int:
        """Nothing."""
        return 0


@torch.no_grad()
def check_chunks(captured: ModelGraph, lifted: ModelGraph, *, longest: int | None = None) -> None:
    """Compare the logits of 37 random tokens, at the first positions and at the last ones.

    captured    the model before any pass
    lifted      after LiftKVCache
    longest     positions that the model has; None = as many as there are slots

    Raises:
        PassError: they differ by more than a thousandth of the largest logit.
    """
    slots = [
        shape(lifted.input(port.role, port.layer))
        for port in lifted.inputs
        if port.role in (Role.KEY, Role.VALUE, Role.STATE)
    ]
    capacity = slots[0][2] if lifted.calls(torch.ops.lcc.cached_attention.default) else sum(CHUNKS)
    vocabulary = shape(captured.graph.output_node().args[0][0])[-1]
    count = min(sum(CHUNKS), capacity, longest or capacity)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocabulary, (1, count), generator=draw)
    for first in sorted({0, min(capacity, longest or capacity) - count}):
        positions = torch.arange(first, first + count)[None]
        wanted = captured.module(tokens, positions)[0][0]
        got = _in_chunks(lifted, slots, tokens, positions)
        error, largest = (got - wanted).abs().amax(dim=1), float(wanted.abs().max())
        wrong = torch.nonzero(~(error <= TOLERANCE * largest))  # so that NaN is wrong too
        if len(wrong):
            place = int(wrong[0])
            raise PassError(
                f"the model gives other logits when it is read in chunks of {CHUNKS}: token "
                f"{place} at position {first + place} differs by {float(error[place]):.2g} of "
                f"{largest:.2g}; something besides attention carries from token to token (a "
                "convolution, a recurrence, angles that depend on the length), or an attention "
                "was not what it seemed; lcc cannot compile this model"
            )


def _in_chunks(lifted: ModelGraph, slots: list[tuple], tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits [n, V] of tokens [1, n], read one chunk after the other into an empty cache."""
    caches = [torch.zeros(size) for size in slots]
    chosen = any(port.role == Role.ROWS for port in lifted.inputs)
    of_queries = [torch.zeros(1, dtype=torch.int64)] if chosen else []
    rows, used = [], 0
    for size in CHUNKS:
        part = slice(used, min(used + size, tokens.shape[1]))
        if part.start == part.stop:
            break
        start = torch.tensor([used], dtype=torch.int32)
        outputs = lifted.module(tokens[:, part], positions[:, part], start, *of_queries, *caches)
        rows.append(outputs[0][0])
        caches, used = list(outputs[-len(caches) :]), part.stop
    return torch.cat(rows)
