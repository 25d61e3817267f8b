"""Recurrences whose heads have a single value, as Mamba's and Griffin's: thousands of heads."""

from typing import Any

from lcc.targets.tvm_cpu.linear_attention_parts import Arguments, Recurrence
from lcc.targets.tvm_cpu.tir import (
    Tiles,
    exp,
    fill,
    lanes_of,
    part_of,
    script,
    span,
    store,
    total,
)

HEADS = 64  # of a task


def rows_of_keys(rule: Recurrence, given: Arguments, tiles: Tiles) -> tuple[int, Any]:
    """Tasks, and what one does: the K numbers of a head side by side, head after head."""
    T, lanes = script(), lanes_of(rule.keys, tiles.lanes)
    heads = part_of(rule.heads, HEADS, 1)
    state = T.decl_buffer((rule.heads, rule.keys), "float32", data=given.state.data)

    def of_token(token: Any, head: Any) -> None:
        group = T.bind(head // rule.repeats)
        value = T.bind(given.v[0, token, head, 0])
        decay = exp(given.decay[0, token, head, 0], 1) if rule.decay == "head" else None
        parts = [span(first, lanes) for first in range(0, rule.keys, lanes)]
        rows, said = [], None
        for part in parts:
            row = state[head, part]
            if decay is not None:
                row = row * fill(decay, lanes)
            elif rule.decay == "channel":
                row = row * exp(given.decay[0, token, head, part], lanes)
            rows.append(T.bind(row))
            product = rows[-1] * given.k[0, token, group, part]
            said = product if said is None else said + product
        if rule.beta:
            value = T.bind((value - total(said, lanes)) * given.beta[0, token, head])
        out = None
        for part, row in zip(parts, rows, strict=True):
            row = T.bind(row + given.k[0, token, group, part] * fill(value, lanes))
            store(state, [head, part], row)
            product = row * given.q[0, token, group, part]
            out = product if out is None else out + product
        store(given.out, [0, token, head, 0], total(out, lanes) * T.float32(rule.scale))

    def of_task(task: Any) -> None:
        first = T.bind(task * heads)
        with T.serial(0, given.length) as token, T.serial(0, heads) as head:
            of_token(token, T.bind(first + head))

    return rule.heads // heads, of_task


def single_numbers(rule: Recurrence, given: Arguments, tiles: Tiles) -> tuple[int, Any]:
    """Tasks, and what one does: heads side by side, whose state is one number."""
    T = script()
    lanes = lanes_of(rule.heads if rule.repeats == 1 else rule.repeats, tiles.lanes)
    heads = part_of(rule.heads, HEADS * tiles.lanes, lanes)
    state = T.decl_buffer((rule.heads,), "float32", data=given.state.data)

    def flat(buffer: Any, width: int) -> Any:
        return T.decl_buffer((given.length, width), "float32", data=buffer.data)

    q, k = (flat(each, rule.groups) for each in (given.q, given.k))
    v, out = (flat(each, rule.heads) for each in (given.v, given.out))
    decay = flat(given.decay, rule.heads) if rule.decay else None

    def of_group(buffer: Any, token: Any, first: Any) -> Any:
        if rule.repeats == 1:
            return buffer[token, span(first, lanes)]
        return fill(buffer[token, first // rule.repeats], lanes)

    def of_heads(token: Any, first: Any) -> None:
        place = span(first, lanes)
        key, row, value = of_group(k, token, first), state[place], v[token, place]
        if decay is not None:
            row = T.bind(row * exp(decay[token, place], lanes))
        if rule.beta:
            value = (value - key * row) * given.beta[0, token, place]
        row = T.bind(row + key * value)
        store(state, [place], row)
        read = of_group(q, token, first) * row
        store(out, [token, place], read * fill(rule.scale, lanes))

    def of_task(task: Any) -> None:
        first = T.bind(task * heads)
        with T.serial(0, given.length) as token, T.serial(0, heads // lanes) as vector:
            of_heads(token, T.bind(first + vector * lanes))

    return rule.heads // heads, of_task
