"""Vectors, loops and functions of numbers, for kernels that are written as TIR.

Kernels are built statement by statement: a Python loop is unrolled, `T.serial` is a loop of the
kernel. What is kept in registers is a buffer of one row, a few vectors long, read and written at
constant places: LLVM keeps such a one in registers, and no larger one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Literal

from lcc.config import Precision

OPAQUE = 8  # of TVM's kinds of functions: nothing is fused into it
LOWEST = -1e30  # a logit that nothing sees: exp() of it is 0, and unlike -inf no NaN comes of it


@dataclass(frozen=True)
class Tiles:
    """How a kernel cuts its work for one level of CPU.

    lanes       float32 numbers of a vector register
    rows        of a register tile
    columns     of a register tile, and of a tile of packed weights
    byte_columns    the same of products in 8 bits, which keep more sums in registers
    block_rows      rows of products in blocks, which keep a second sum while they add up a block
    bytes       how four products of bytes are added up: see `byte_dot`
    bf16        whether attention multiplies in bfloat16: see `attention_bf16`
    """

    lanes: int
    rows: int
    columns: int
    byte_columns: int
    block_rows: int
    bytes: Literal["vnni", "maddubs", "pairs", "dotprod", "long"]
    bf16: bool = False

    @property
    def least_byte(self) -> int:
        """The least byte of a weight: unsigned on x86, signed on Arm."""
        return -128 if self.bytes in ("dotprod", "long") else 0

    @property
    def in_16_bits(self) -> bool:
        """Whether bytes are multiplied in 16 bits, so that inputs better lie in memory so."""
        return self.bytes in ("maddubs", "pairs")


TILES = {
    "cooperlake": Tiles(16, 8, 32, 48, 6, "vnni"),
    "x86-64-v4": Tiles(16, 8, 32, 32, 6, "maddubs"),
    "x86-64-v3": Tiles(8, 4, 16, 16, 3, "maddubs"),
    "x86-64": Tiles(4, 4, 8, 8, 3, "pairs"),
    "armv8.2-a": Tiles(4, 8, 8, 12, 6, "dotprod"),
    "generic": Tiles(4, 8, 8, 8, 6, "long"),
}


def tiles_of(level: str, precision: Precision) -> Tiles:
    """For a level of CPU; where weights are rounded anyway, products of attention are, too."""
    return replace(TILES[level], bf16=level == "cooperlake" and precision != "fp32")


def script() -> Any:
    """TVM's builder of TIR."""
    from tvm.tirx.script import builder

    return builder


@contextmanager
def kernel(name: str) -> Iterator[list]:
    """Build one function; the list holds it when the block is left."""
    from tvm.s_tir import SBlock, SBlockRealize
    from tvm.script.ir_builder import IRBuilder

    T = script()
    made: list = []
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        T.func_name(name)
        T.func_attr({"lcc.kernel": name, "op_pattern": OPAQUE})
        yield made
    function = builder.get()
    block = SBlock([], [], [], name, function.body)  # TVM looks for one in every function
    made.append(function.with_body(SBlockRealize([], True, block)))


def parameter(name: str, shape: Sequence, dtype: str = "float32") -> Any:
    """The next parameter of the kernel: a buffer; names of sizes are bound by their first use."""
    T = script()
    return T.match_buffer(T.arg(name, T.handle()), shape, dtype)


def rows_of(count: int, width: int) -> list:
    """Rows [width] float32 that live in registers."""
    T = script()
    return [T.alloc_buffer((width,), "float32") for _ in range(count)]


def span(start: Any, lanes: int) -> Any:
    """Places start .. start + lanes - 1, as an index."""
    return script().ramp(start, 1, lanes) if lanes > 1 else start


def fill(value: Any, lanes: int) -> Any:
    """A vector of one number."""
    T = script()
    value = T.float32(value) if isinstance(value, float) else value
    return T.broadcast(value, lanes) if lanes > 1 else value


def store(buffer: Any, index: Sequence, value: Any) -> None:
    """Write a number, or a vector at a `span`."""
    script().buffer_store(buffer, value, list(index))


def row_of(tokens: Any, place: Any, count: int) -> Any:
    """The row of a table of `count` rows that tokens[0, place] names; the nearest where none is."""
    T = script()
    token = T.cast(tokens[0, place], "int64")
    return T.bind(T.max(T.min(token, T.int64(count - 1)), T.int64(0)))


def lanes_of(width: int, lanes: int) -> int:
    """The longest vector that divides rows of `width` numbers."""
    return gcd(width, lanes)


def part_of(width: int, most: int, step: int) -> int:
    """The largest part, of `most` numbers at most and in steps of `step`, that divides `width`."""
    return max(part for part in range(step, max(most, step) + 1, step) if width % part == 0)


def shared(count: Any, body: Callable[[Any], None], *, worth: Any = True) -> None:
    """Call body(task) for every task, among threads where it is worth waking them."""
    T = script()
    if worth is True:
        with T.parallel(0, count) as task:
            body(task)
        return
    with T.If(worth):
        with T.Then(), T.parallel(0, count) as task:
            body(task)
        with T.Else(), T.serial(0, count) as task:
            body(task)


def total(x: Any, lanes: int) -> Any:
    """The sum of the numbers of a float32 vector."""
    return folded(x, lanes, lambda a, b: a + b)


def totals(vectors: list) -> Any:
    """The sums of n float32 vectors of n numbers, as one vector; n a power of 2.

    Two become one, with half as many numbers of each sum, until one is left of each.
    """
    T, lanes, part = script(), len(vectors), len(vectors)
    while len(vectors) > 1:
        half = part // 2
        low = [place for place in range(2 * lanes) if place % part < half]
        high = [place + half for place in low]
        vectors = [
            T.bind(T.Shuffle(pair, low) + T.Shuffle(pair, high))
            for pair in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        part = half
    return vectors[0]


def folded(x: Any, lanes: int, combine: Callable[[Any, Any], Any], dtype: str = "float32") -> Any:
    """One number of all in a vector."""
    T = script()
    while lanes > 2:
        lanes, x = lanes // 2, T.bind(x)
        kind = f"{dtype}x{lanes}"
        x = combine(T.vectorlow(kind, x), T.vectorhigh(kind, x))
    if lanes == 1:
        return x
    x = T.bind(x)
    return combine(T.Shuffle([x], [0]), T.Shuffle([x], [1]))


def multiply_add(
    rows: list,
    depth: Any,
    left: Callable[[int, Any], Any],
    right: Callable[[Any, Any], Any],
    *,
    width: int,
    lanes: int,
) -> None:
    """rows[i][:] += sum over k < depth of left(i, k) * right(k, column): the inner loop of all.

    rows        in registers, [width] each
    left        (i, k) -> number
    right       (k, first column) -> vector
    """
    T = script()
    with T.serial(0, depth) as k:
        for i, row in enumerate(rows):
            for column in range(0, width, lanes):
                place = span(column, lanes)
                store(row, [place], row[place] + fill(left(i, k), lanes) * right(k, column))


def clear(rows: list, *, width: int, lanes: int) -> None:
    """Set rows in registers to 0."""
    for row in rows:
        for column in range(0, width, lanes):
            store(row, [span(column, lanes)], fill(0.0, lanes))


def exp(x: Any, lanes: int, *, bind: bool = True) -> Any:
    """e^x of a float32 vector, within 2 units in the last place (Cephes' expf); 0 below -87.

    LLVM has no vector exp: it would call the C library's for every number. Without `bind` it is one
    expression, for a computation that is not built statement by statement.
    """
    T = script()
    name = T.bind if bind else lambda value: value
    kind = f"x{lanes}" if lanes > 1 else ""

    def number(value: float) -> Any:
        return fill(value, lanes)

    x = name(x)
    near = name(T.max(T.min(x, number(88.0)), number(-87.0)))
    n = name(T.floor(near * number(1.44269504088896341) + number(0.5)))
    r = name(near - n * number(0.693359375) - n * number(-2.12194440e-4))
    y = number(1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        y = y * r + number(c)
    y = name(y * r * r + r + number(1.0))
    bits = (T.cast(n, f"int32{kind}") + fill(T.int32(127), lanes)) << fill(T.int32(23), lanes)
    y = y * T.reinterpret(f"float32{kind}", bits)
    return name(T.Select(x >= number(-87.0), y, number(0.0)))


def exp_of_bf16(x: Any, lanes: int) -> Any:
    """e^x of a float32 vector, x at most 0, within 1.3e-4 of it; 0 below -87.

    A cubic for the part of a power of two, which bfloat16 rounds ten times as much.
    """
    T = script()
    kind = f"x{lanes}" if lanes > 1 else ""

    def number(value: float) -> Any:
        return fill(value, lanes)

    x = T.bind(x)
    power = T.bind(T.max(x, number(-87.0)) * number(1.44269504088896341))
    n = T.bind(T.nearbyint(power))
    r = T.bind(power - n)
    y = number(0.05550410866)
    for c in (0.24022650696, 0.69314718056, 1.0):
        y = y * r + number(c)
    bits = (T.cast(n, f"int32{kind}") + fill(T.int32(127), lanes)) << fill(T.int32(23), lanes)
    y = y * T.reinterpret(f"float32{kind}", bits)
    return T.bind(T.Select(x >= number(-87.0), y, number(0.0)))


def tanh(x: Any, lanes: int) -> Any:
    """Hyperbolic tangent of a float32 vector, within 1e-7."""
    return fill(1.0, lanes) - fill(2.0, lanes) / (exp(x + x, lanes) + fill(1.0, lanes))


def erf(x: Any, lanes: int) -> Any:
    """The error function of a float32 vector, within 3e-7 (Abramowitz and Stegun, 7.1.26)."""
    T = script()

    def number(value: float) -> Any:
        return fill(value, lanes)

    x = T.bind(x)
    size = T.bind(T.max(x, number(0.0) - x))
    t = T.bind(number(1.0) / (number(1.0) + number(0.3275911) * size))
    y = number(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        y = y * t + number(c)
    y = T.bind(number(1.0) - y * t * exp(number(0.0) - size * size, lanes))
    return T.bind(T.Select(x < number(0.0), number(0.0) - y, y))
