"""Recurrences whose state is a matrix of each head, token after token.

Columns of a state do not depend on one another: a task is a head and some of its columns, which it
copies to where they lie together and stay in the cache of the CPU. Of every token it goes over them
twice: what the state says of the key, then the change and what the query reads.

Blocks of six tokens as products of matrices (the WY form, arXiv 2412.06464) were not faster: 7.2 ms
against 6.9 ms for 256 tokens of 16 heads of 128 x 128, gated delta rule, AVX2, one thread.
"""

from typing import Any

from lcc.targets.tvm_cpu.linear_attention_parts import Arguments, Recurrence, arguments
from lcc.targets.tvm_cpu.linear_attention_rows import rows_of_keys, single_numbers
from lcc.targets.tvm_cpu.tir import (
    Tiles,
    clear,
    exp,
    fill,
    kernel,
    lanes_of,
    part_of,
    rows_of,
    script,
    shared,
    span,
    store,
)

VECTORS = 4  # of columns of a task
WORTH = 1 << 16  # numbers of the state, times tokens, for which other threads are woken


def linear_attention(rule: Recurrence, tiles: Tiles) -> Any:
    """Kernel (q, k, v, [decay,] [beta,] state, out) of `lcc::linear_attention`.

    q, k        [1, Q, G, K] float32
    v, out      [1, Q, H, V]
    decay       [1, Q, H, 1] or [1, Q, H, K]
    beta        [1, Q, H]
    state       [1, H, K, V], which is updated
    """
    with kernel("linear_attention") as made:
        given = arguments(rule)
        if rule.values == 1:
            form = single_numbers if rule.keys == 1 else rows_of_keys
            count, of_task = form(rule, given, tiles)
        else:
            count, of_task = _columns(rule, given, tiles)
        worth = given.length * (rule.heads * rule.keys * rule.values) >= WORTH
        shared(count, of_task, worth=worth)
    return made[0]


def _columns(rule: Recurrence, given: Arguments, tiles: Tiles) -> tuple[int, Any]:
    T = script()
    lanes = lanes_of(rule.values, tiles.lanes)
    wide = part_of(rule.values, VECTORS * lanes, lanes)
    across = rule.values // wide

    def of_task(task: Any) -> None:
        head, first = T.bind(task // across), T.bind(task % across * wide)
        columns = _Columns(rule, given, tiles, head, first, wide)
        with T.If(given.length == 1):
            with T.Then():
                columns.read(0, given.state, [0, head], first)
            with T.Else():
                near = T.alloc_buffer((rule.keys, wide), "float32")
                columns.copy(given.state, [0, head], first, near, [], 0)
                with T.serial(0, given.length) as token:
                    columns.read(token, near, [], 0)
                columns.copy(near, [], 0, given.state, [0, head], first)

    return rule.heads * across, of_task


class _Columns:
    """Some columns of the state of one head.

    said, change, out   [columns], in registers
    """

    def __init__(
        self, rule: Recurrence, given: Arguments, tiles: Tiles, head: Any, first: Any, wide: int
    ) -> None:
        T = script()
        self.rule, self.given, self.head, self.first, self.wide = rule, given, head, first, wide
        self.group = T.bind(head // rule.repeats)
        self.lanes = lanes_of(rule.values, tiles.lanes)
        self.along = lanes_of(rule.keys, tiles.lanes)
        self.sets = 2 if rule.keys % 2 == 0 else 1
        self.said = rows_of(self.sets, wide)
        (self.change, self.out) = rows_of(2, wide)
        if rule.decay == "channel":
            self.stays = T.alloc_buffer((rule.keys,), "float32")
            self.faded = T.alloc_buffer((rule.keys,), "float32")  # the key, times what stays

    def copy(
        self, source: Any, index: list, start: Any, target: Any, other: list, begin: Any
    ) -> None:
        T = script()
        with T.serial(0, self.rule.keys) as k:
            for column in range(0, self.wide, self.lanes):
                value = source[(*index, k, span(start + column, self.lanes))]
                store(target, [*other, k, span(begin + column, self.lanes)], value)

    def read(self, token: Any, state: Any, index: list, start: Any) -> None:
        """Change the state as a token does, and give what it reads.

        state, index, start     where it lies: state[*index, k, start + column]
        """
        T, rule, given, lanes = script(), self.rule, self.given, self.lanes
        decay = None
        if rule.decay == "head":
            decay = exp(given.decay[0, token, self.head, 0], 1)
        elif rule.decay == "channel":
            self._fade(token)
        self._change(token, state, index, start, decay)
        clear([self.out], width=self.wide, lanes=lanes)
        with T.serial(0, rule.keys) as k:
            key = fill(T.bind(given.k[0, token, self.group, k]), lanes)
            query = fill(T.bind(given.q[0, token, self.group, k]), lanes)
            kept = self.stays[k] if rule.decay == "channel" else decay
            kept = None if kept is None else T.bind(kept)
            for column in range(0, self.wide, lanes):
                place, near = span(start + column, lanes), span(column, lanes)
                row = state[(*index, k, place)]
                row = row if kept is None else row * fill(kept, lanes)
                row = T.bind(row + key * self.change[near])
                store(state, [*index, k, place], row)
                store(self.out, [near], self.out[near] + query * row)
        for column in range(0, self.wide, lanes):
            place = span(self.first + column, lanes)
            value = self.out[span(column, lanes)] * fill(rule.scale, lanes)
            store(given.out, [0, token, self.head, place], value)

    def _fade(self, token: Any) -> None:
        """What stays of every row of the state, and the key as that row meets it."""
        T, along = script(), self.along
        with T.serial(0, self.rule.keys // along) as vector:
            place = span(vector * along, along)
            stays = exp(self.given.decay[0, token, self.head, place], along)
            store(self.stays, [place], stays)
            store(self.faded, [place], stays * self.given.k[0, token, self.group, place])

    def _change(self, token: Any, state: Any, index: list, start: Any, decay: Any) -> None:
        """What is to be added for a key of 1."""
        T, rule, given, lanes, sets = script(), self.rule, self.given, self.lanes, self.sets
        if not rule.beta:
            for column in range(0, self.wide, lanes):
                value = given.v[0, token, self.head, span(self.first + column, lanes)]
                store(self.change, [span(column, lanes)], value)
            return
        clear(self.said, width=self.wide, lanes=lanes)
        with T.serial(0, rule.keys // sets) as step:
            for i, said in enumerate(self.said):
                k = step * sets + i
                key = self.faded[k] if rule.decay == "channel" else given.k[0, token, self.group, k]
                key = fill(T.bind(key), lanes)
                for column in range(0, self.wide, lanes):
                    place, near = span(start + column, lanes), span(column, lanes)
                    store(said, [near], said[near] + key * state[(*index, k, place)])
        beta = fill(T.bind(given.beta[0, token, self.head]), lanes)
        for column in range(0, self.wide, lanes):
            near = span(column, lanes)
            said = sum((each[near] for each in self.said[1:]), self.said[0][near])
            said = said if decay is None else said * fill(decay, lanes)
            value = given.v[0, token, self.head, span(self.first + column, lanes)]
            store(self.change, [near], (value - said) * beta)
