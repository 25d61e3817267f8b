"""Short causal convolutions of channels: tokens one after the other, channels side by side."""

from typing import Any

from lcc.targets.tvm_cpu.tir import (
    Tiles,
    kernel,
    lanes_of,
    parameter,
    part_of,
    script,
    shared,
    span,
    store,
)

CHANNELS = 128  # of a task
WORTH = 1 << 16  # numbers of a convolution for which other threads are woken


def causal_conv(channels: int, size: int, tiles: Tiles, *, bias: bool) -> Any:
    """Kernel (x, weight, [bias,] state, out) of `lcc::causal_conv`, which updates the state.

    x, out      [1, Q, C] float32
    weight      [C, K]
    bias        [C]
    state       [1, K-1, C]
    """
    T, before = script(), size - 1
    with kernel("causal_conv") as made:
        length = T.int64()
        x = parameter("x", (1, length, channels))
        weight = parameter("weight", (channels, size))
        added = parameter("bias", (channels,)) if bias else None
        state = parameter("state", (1, before, channels))
        out = parameter("out", (1, length, channels))
        lanes = lanes_of(channels, tiles.lanes)
        wide = part_of(channels, CHANNELS, lanes)

        def of_task(task: Any) -> None:
            first = T.bind(task * wide)
            turned = T.alloc_buffer((size, wide), "float32")
            with T.serial(0, wide) as c:
                for j in range(size):
                    store(turned, [j, c], weight[first + c, j])

            def of_token(token: Any, rows: list) -> None:
                """rows: (buffer, its row) of this token and those before it, oldest first."""
                with T.serial(0, wide // lanes) as vector:
                    near = span(vector * lanes, lanes)
                    place = span(first + vector * lanes, lanes)
                    value = None if added is None else added[place]
                    for j, (source, row) in enumerate(rows):
                        product = source[0, row, place] * turned[j, near]
                        value = product if value is None else value + product
                    store(out, [0, token, place], value)

            for token in range(before):  # some of whose rows are of the state
                rows = [(state, token + j) for j in range(before - token)]
                rows += [(x, j) for j in range(token + 1)]
                with T.If(length > token), T.Then():
                    of_token(token, rows)
            with T.serial(0, T.max(length - before, T.int64(0))) as after:
                of_token(after + before, [(x, after + j) for j in range(size)])
            for row in range(before):  # upwards: what is read lies behind what is written
                with T.serial(0, wide // lanes) as vector:
                    place = span(first + vector * lanes, lanes)
                    with T.If(length + row < before):
                        with T.Then():
                            store(state, [0, row, place], state[0, row + length, place])
                        with T.Else():
                            newest = x[0, row + length - before, place]
                            store(state, [0, row, place], newest)

        shared(channels // wide, of_task, worth=length * (channels * size) >= WORTH)
    return made[0]
