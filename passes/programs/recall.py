"""What a question calls back from an archive: the programs of a recall; no weights.

    attend      once a block of rows and voting layer: the sum of exp(logit), for one softmax over
                the whole archive
    vote        once more: what the question pays to each row, averaged over the voting layers
    choose      the rows of the best sentences, in token order
    put_back    a layer: those rows in the slots behind what is protected

Archived keys have no rotation, and the question's queries are turned to positions 0, 1, ...: all
rows are ranked as if they stood right before the question, whatever their distance was.
"""

import torch
from torch import Tensor, nn

from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.policies import EvictionPolicy
from lcc.passes.policies.base import top_mask
from lcc.passes.policies.consensus import PREDICTABLE, known_nll
from lcc.passes.policies.entry_scores import SENTENCE_MODULUS
from lcc.passes.programs.archive import archived_scores
from lcc.passes.programs.compact import Turn
from lcc.passes.programs.evict import (
    Evict,
    Protection,
    score_inputs,
    score_ports,
    stored_name,
)
from lcc.passes.rotation import Rotation

NOTHING = -1e30  # the logarithm of a sum of nothing


class Ask(nn.Module):
    """Logits of a question's queries over rows of an archive, in one layer."""

    def __init__(
        self,
        rotation: Rotation | None,
        *,
        scale: float,
        softcap: float = 0.0,
        sinks: Tensor | None = None,
        count: tuple[int, int] = (0, 1),
    ) -> None:
        """As `Score`; `count`: the first voting layer, and the KV heads of all of them."""
        super().__init__()
        self.turn, self.scale, self.softcap, self.count = Turn(rotation), scale, softcap, count
        self.sinks: Tensor | None
        self.register_buffer("sinks", sinks)

    def logits(self, queries: Tensor, key: Tensor, start: Tensor, head: int) -> Tensor:
        """[Hq/Hkv, P, R] of one KV head; queries [P, Hq, D], key [R, Hkv, D]."""
        group = queries.shape[1] // key.shape[1]
        mine = queries[:, head * group : (head + 1) * group].transpose(0, 1)  # [G, P, D]
        back = start.long().expand(group, queries.shape[0])
        logits = (self.turn(mine, back) * self.scale) @ key[:, head].transpose(0, 1)
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


class Attend(Ask):
    """Adds the rows of one block to the sum that a softmax divides by.

    queries         [P, Hq, D]      rotated, the first one at position `start`
    archived_key    [R, Hkv, D]     without rotation
    start           [1] int32
    row             [1] int32       number of the block's first row in the archive; 0 begins
    total           [P, Hq]         logarithm of the sum so far

    returns         [P, Hq]         the same, with this block's rows
    """

    def forward(
        self, queries: Tensor, archived_key: Tensor, start: Tensor, row: Tensor, total: Tensor
    ) -> Tensor:
        """See the class."""
        sums = []
        for head in range(archived_key.shape[1]):
            logits = self.logits(queries, archived_key, start, head)
            top = logits.amax(-1, keepdim=True)
            sums.append(((logits - top).exp().sum(-1, keepdim=True).log() + top).squeeze(-1))
        new = torch.cat(sums).transpose(0, 1)  # [P, Hq]
        begin = torch.full_like(total, NOTHING)
        if self.sinks is not None:
            begin = self.sinks.expand_as(total)
        old = torch.where(row == 0, begin, total)
        most = torch.maximum(old, new)
        return most + ((old - most).exp() + (new - most).exp()).log()


class Vote(Ask):
    """What a question pays to the rows of one block.

    queries, archived_key, start    as in `Attend`
    layer       [1] int32
    total       [P, Hq]     from `Attend`, of the whole archive
    votes       [R]         of the voting layers before this one

    returns     [R]         with this layer's: the largest share over the question's tokens and the
                query heads of a group, the mean over the KV heads of all voting layers
    """

    def forward(
        self,
        queries: Tensor,
        archived_key: Tensor,
        start: Tensor,
        layer: Tensor,
        total: Tensor,
        votes: Tensor,
    ) -> Tensor:
        """See the class."""
        heads = archived_key.shape[1]
        group = queries.shape[1] // heads
        sums = total.transpose(0, 1)[..., None]  # [Hq, P, 1]
        first, count = self.count
        new = torch.where(layer == first, 0.0, votes)
        for head in range(heads):
            logits = self.logits(queries, archived_key, start, head)
            paid = logits - sums[head * group : (head + 1) * group]
            new = new + paid.amax(1).amax(0).exp() / count
        return new


class Choose(nn.Module):
    """The rows of the sentences that a question pays most, whole, up to the budget.

    floor   a sentence that the text before it predicts (`PREDICTABLE` nats a token) stays away if
            it is worth less than this share of the best sentence of the whole archive: what is
            asked for does not come back among repeated noise. None = likelihoods are not known

    votes, position, sentence   [N] float32, int64, float32     of all rows of the archive
    by_token        [T] float32         zeros, one a token of the text
    token_position  [Hkv, S] int64      of the cache as it is
    used, kept, protected   [1] int32   as in `Evict`
    tokens_read     [1] int64
    new_slots       [budget] int64
    nll     [N] float32                 of all rows of the archive; only with a floor

    gives
    rows    [budget] int64  rows of the archive in token order, in the first `count` places
    count   [1] int32
    first   [1] int32       slots at the beginning that stay as they are
    held    [1] int32       first + count

    A sentence is worth the mean vote of its rows. The newest tokens always come back.
    """

    def __init__(self, protection: Protection, floor: float | None = None) -> None:
        super().__init__()
        self.protection, self.floor = protection, floor

    def forward(
        self,
        votes: Tensor,
        position: Tensor,
        sentence: Tensor,
        by_token: Tensor,
        token_position: Tensor,
        used: Tensor,
        kept: Tensor,
        protected: Tensor,
        tokens_read: Tensor,
        new_slots: Tensor,
        nll: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        tokens, budget = by_token.shape[0], new_slots.shape[0]
        begin = position - (position - sentence.long()) % SENTENCE_MODULUS
        total = by_token.scatter_add(0, begin, votes)
        size = by_token.scatter_add(0, begin, torch.ones_like(votes))
        rank = (total / size.clamp(min=1.0)).index_select(0, begin)
        first = torch.minimum(protected.clamp(min=self.protection.sink_size), used).long()
        slot = torch.arange(token_position.shape[1])
        counted = slot - used + tokens_read
        held = torch.where(slot < kept, token_position[0], counted)
        held = torch.where(slot < first, held, 0)
        stays = by_token.scatter_add(0, held, (slot < first).float()).index_select(0, position) > 0
        recent = position >= tokens_read - self.protection.recent_size
        comes = ~stays
        if nll is not None and self.floor is not None:
            said = by_token.scatter_add(0, begin, known_nll(nll)).index_select(0, begin)
            tokens_said = size.index_select(0, begin)
            noise = (said < PREDICTABLE * tokens_said) & (rank < self.floor * rank.max())
            comes = comes & (recent | ~noise)
        rank = rank.masked_fill(recent, torch.inf).masked_fill(~comes, -torch.inf)
        count = torch.minimum((budget - first).clamp(min=0), comes.sum(0, keepdim=True))
        here = by_token.scatter_add(0, position, torch.ones_like(votes)) > 0
        in_order = torch.where(here, by_token.scatter_add(0, position, rank), -torch.inf)
        # In the order of tokens: of rows that tie the newer are taken.
        best = top_mask(in_order[None], count, budget)[0]
        token, row = torch.arange(tokens), torch.arange(votes.shape[0]).float()
        # Positions counted from the end: the largest come first and what is not chosen is 0.
        from_end = torch.where(best & (in_order > -torch.inf), tokens - token, 0)
        order = torch.topk(from_end[None], budget, dim=1).values[0]
        rows = by_token.scatter_add(0, position, row).long()  # of each token; float32 has 2**24
        rows = rows.index_select(0, torch.where(order > 0, tokens - order, 0))
        count, first = count.to(torch.int32), first.to(torch.int32)
        return rows, count, first, first + count


class PutBack(Evict):
    """The cache of a layer with archived entries in the slots behind what stays as it is.

    The inputs are those of `Evict`, without counters of its own and `new_slots`, and
    first, count    [1] int32           slots that stay, and entries that come behind them
    used, kept      [1] int32           as in `Evict`
    tokens_read     [1] int64
    back_key        [budget, Hkv, D]    without rotation; back_value likewise
    back_position   [budget] int64      ascending; and back_<score> [budget] of what they took along

    gives what `Evict` gives, in spare memory; a key turns to the angle of its slot. Without a value
    where that is the key.
    """

    NUMBERS = ("first", "count", "used", "kept", "tokens_read")

    def __init__(
        self, policy: EvictionPolicy, rotation: Rotation | None = None, *, shared: bool = False
    ) -> None:
        super().__init__(policy, Protection(0, 0), rotation, shared=shared)
        taken = [f"back_{each.name}" for each in archived_scores(policy)]
        self.entry = ("key",) if shared else ("key", "value")
        back = [*(f"back_{each}" for each in self.entry), "back_position"]
        self.names = [*self.moved, *self.NUMBERS, *back, *taken, *score_inputs(policy)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The inputs in the order of `names`."""
        given = dict(zip(self.names, inputs, strict=True))
        key, first = given["key"], given["first"]
        heads, slot = key.shape[1], torch.arange(key.shape[2])
        position, scores = self._known(given, slot)
        new = (slot >= first) & (slot < first + given["count"])
        row = torch.where(new, slot - first, 0)

        def back(name: str) -> Tensor:
            return given[name].index_select(0, row)

        turned = self.turn.ahead(back("back_key").transpose(0, 1), slot.expand(heads, -1))
        results = [torch.where(new[:, None], turned[None], key)]
        if "value" in given:
            rows = back("back_value").transpose(0, 1)[None]
            results.append(torch.where(new[:, None], rows, given["value"]))
        results.append(torch.where(new, back("back_position"), position))
        results += [
            torch.where(new, back(f"back_{each.name}"), scores[each.name])
            for each in archived_scores(self.policy)
        ]
        return tuple(results)


_ROWS = {0: ("rows", torch.export.Dim("rows", min=1))}
_BLOCK = {0: ("archive_rows", torch.export.Dim("archive_rows", min=1))}
_SLOTS = "slots", torch.export.Dim("slots", min=8)


def _one(name: str) -> Input:
    value = torch.zeros(1, dtype=torch.int64 if name == "tokens_read" else torch.int32)
    return Input(Port(name, Role.COUNTER), value)


def attend_program(
    name: str, ask: Attend, *, query_heads: int, kv_heads: int, head_size: int
) -> Program:
    """Export `Attend` for layers of one shape."""
    asked, total = _asked(query_heads, kv_heads, head_size)
    inputs = [*asked, _one("start"), _one("row"), total]
    return export(ask, (name,), inputs, [Port("total_out", Role.ARCHIVED)], {"total_out": "total"})


def vote_program(
    name: str, ask: Vote, *, query_heads: int, kv_heads: int, head_size: int
) -> Program:
    """Export `Vote` for layers of one shape."""
    asked, total = _asked(query_heads, kv_heads, head_size)
    votes = Input(Port("votes", Role.ARCHIVED), torch.zeros(16), _BLOCK)
    inputs = [*asked, _one("start"), _one("layer"), total, votes]
    return export(ask, (name,), inputs, [Port("votes_out", Role.ARCHIVED)], {"votes_out": "votes"})


def _asked(query_heads: int, kv_heads: int, head_size: int) -> tuple[list[Input], Input]:
    """Queries and archived keys; and the sum that their softmax divides by."""
    queries = Input(Port("queries", Role.QUERIES), torch.zeros(8, query_heads, head_size), _ROWS)
    rows = torch.zeros(16, kv_heads, head_size)
    keys = Input(Port("archived_key", Role.ARCHIVED), rows, _BLOCK)
    return [queries, keys], Input(Port("total", Role.ARCHIVED), torch.zeros(8, query_heads), _ROWS)


def choose_program(choose: Choose, *, kv_heads: int, capacity: int, budget: int) -> Program:
    """Export `Choose`; sizes are those to trace with, it takes any others."""
    least = budget + 8
    archived = {0: ("archived", torch.export.Dim("archived", min=1))}
    inputs = [
        Input(Port("votes", Role.ARCHIVED), torch.zeros(least), archived),
        Input(Port("position", Role.ARCHIVED), torch.arange(least), archived),
        Input(Port("sentence", Role.ARCHIVED), torch.zeros(least), archived),
        Input(
            Port("by_token", Role.ARCHIVED),
            torch.zeros(least + 5),
            {0: ("all_tokens", torch.export.Dim("all_tokens", min=1))},
        ),
        Input(
            Port("token_position", Role.TOKEN_POSITION),
            torch.zeros(kv_heads, capacity, dtype=torch.int64),
            {1: _SLOTS},
        ),
        *map(_one, ("used", "kept", "protected", "tokens_read")),
        Input(
            Port("new_slots", Role.SLOTS),
            torch.arange(budget),
            {0: ("budget", torch.export.Dim("budget", min=1))},
        ),
    ]
    if choose.floor is not None:
        inputs.append(Input(Port("nll", Role.ARCHIVED), torch.zeros(least), archived))
    outputs = [
        Port("rows", Role.KEPT),
        *(Port(each, Role.COUNTER) for each in ("count", "first", "held")),
    ]
    return export(choose, ("choose",), inputs, outputs)


def put_back_program(
    name: str,
    put_back: PutBack,
    *,
    kv_heads: int,
    head_size: int,
    capacity: int,
    budget: int,
) -> Program:
    """Export `PutBack` for layers of one shape."""
    count = {0: ("budget", torch.export.Dim("budget", min=1))}
    policy = put_back.policy
    cache = torch.zeros(1, kv_heads, capacity, head_size)
    inputs = [
        *(Input(Port(e, Role(e)), cache.clone(), {2: _SLOTS}) for e in put_back.entry),
        Input(
            Port("token_position", Role.TOKEN_POSITION),
            torch.zeros(kv_heads, capacity, dtype=torch.int64),
            {1: _SLOTS},
        ),
        *map(_one, PutBack.NUMBERS),
        *(
            Input(
                Port(f"back_{each}", Role.ARCHIVED), torch.zeros(budget, kv_heads, head_size), count
            )
            for each in put_back.entry
        ),
        Input(Port("back_position", Role.ARCHIVED), torch.arange(budget), count),
        *(
            Input(Port(f"back_{each.name}", Role.ARCHIVED), torch.zeros(budget), count)
            for each in archived_scores(policy)
        ),
        *score_ports(policy, kv_heads, capacity, _SLOTS),
    ]
    outputs = [
        *(Port(f"{each}_out", Role(each)) for each in put_back.moved),
        *(Port(f"{stored_name(each)}_out", Role.ENTRY_SCORE) for each in archived_scores(policy)),
    ]
    return export(put_back, (name,), inputs, outputs)
