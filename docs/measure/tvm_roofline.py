"""Kernels of tvm:cpu against what one core of this machine can do; a table, and a picture of it.

python docs/measure/tvm_roofline.py [-o docs/results/roofline.png]

Peaks are measured by kernels that only multiply, in registers, and by reading a large array.
Sizes are those of SmolLM2-135M: a chunk of 256 tokens behind 1,500 entries, and one token. Run it
on an idle core; the least of several times counts.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lcc.artifact.cpu import best_level
from lcc.targets.tvm_cpu import block_products, byte_products, matmul
from lcc.targets.tvm_cpu.attention import cached_attention
from lcc.targets.tvm_cpu.attention_rows import Layer
from lcc.targets.tvm_cpu.bf16 import bf16
from lcc.targets.tvm_cpu.bf16 import dot as dot_bf16
from lcc.targets.tvm_cpu.build import describe
from lcc.targets.tvm_cpu.byte_dot import dot as dot_bytes
from lcc.targets.tvm_cpu.byte_dot import dot_pairs
from lcc.targets.tvm_cpu.platforms import platform
from lcc.targets.tvm_cpu.tir import Tiles, fill, kernel, parameter, script, span, store, tiles_of

LEVEL = best_level()
EIGHT, HALF = tiles_of(LEVEL, "fp32"), tiles_of(LEVEL, "int8")
CHUNK, USED, CAPACITY, ROUNDS = 256, 1500, 2048, 1 << 16
LAYER = Layer(9, 3, 64, 0.125)
FORMS: dict[int, tuple[Callable, ...]] = {  # product, packing, rounding of inputs and its size
    8: (
        byte_products.linear,
        byte_products.pack,
        byte_products.round_rows,
        partial(byte_products.rounded_size, tiles=EIGHT),
    ),
    4: (
        partial(block_products.linear, bits=4),
        partial(block_products.pack, bits=4),
        block_products.round_rows,
        block_products.rounded_size,
    ),
}
COPIES = 96  # of what a step of one token reads, so that no cache holds them


@dataclass(frozen=True)
class Row:
    """One kernel: operations and bytes of memory of a call, and the peak that bounds it."""

    name: str
    seconds: float
    operations: float
    bytes: float
    bound: str


def built(function: Any) -> Callable[..., None]:
    """A kernel of TIR as a function of TVM's tensors."""
    import tvm

    target = tvm.target.Target(describe(LEVEL, platform("cpu")))
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return tvm.compile(module, target=target)["kernel"]


def tensors(*arrays: np.ndarray) -> list[Any]:
    """TVM's copies of arrays."""
    import tvm

    return [tvm.runtime.tensor(np.ascontiguousarray(each)) for each in arrays]


def least(run: Callable[[], object], times: int = 12) -> float:
    """Seconds of the fastest of several calls."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def peak(kind: str, tiles: Tiles) -> float:
    """Operations in a second of products that read and write registers alone."""
    T, lanes, count = script(), tiles.lanes, 12
    dtype = "int32" if kind == "bytes" else "float32"
    with kernel("peak") as made:
        x, out = parameter("x", (2, lanes), "int32"), parameter("out", (count, lanes), dtype)
        rows = [T.alloc_buffer((lanes,), dtype) for _ in range(count)]
        here, zero = span(0, lanes), T.int32(0) if kind == "bytes" else T.float32(0)
        with bf16() if kind == "bf16" else nullcontext():
            a, b = T.bind(x[0, here]), T.bind(x[1, here])
            for row in rows:
                store(row, [here], fill(zero, lanes))
            with T.serial(0, ROUNDS):
                for row in rows:
                    if kind == "bytes" and tiles.in_16_bits:
                        left, right = (
                            T.reinterpret(f"int16x{2 * lanes}", v) for v in (row[here], b)
                        )
                        value = row[here] + dot_pairs(left, right, lanes)
                    elif kind == "bytes":
                        value = dot_bytes(row[here], a, x[1, 0], tiles)
                    elif kind == "bf16":
                        value = dot_bf16(row[here], a, b)
                    else:
                        float_kind = f"float32x{lanes}"
                        product = T.reinterpret(float_kind, a) * T.reinterpret(float_kind, b)
                        value = row[here] + product
                    store(row, [here], value)
            for i, row in enumerate(rows):
                store(out, [i, here], row[here])
    run = built(made[0])
    args = tensors(np.ones((2, lanes), np.int32), np.zeros((count, lanes), dtype))
    of_lane = {"bytes": 2 if tiles.in_16_bits else 4, "bf16": 2, "float32": 1}[kind]
    return 2 * of_lane * lanes * count * ROUNDS / least(lambda: run(*args))


def bandwidth() -> float:
    """Bytes in a second that one core reads of an array that no cache holds."""
    T, lanes, count, columns = script(), HALF.lanes, 8, 1 << 12
    with kernel("read") as made:
        m = T.int64()
        x, out = parameter("x", (m, columns), "int32"), parameter("out", (count, lanes), "int32")
        rows = [T.alloc_buffer((lanes,), "int32") for _ in range(count)]
        here, step = span(0, lanes), count * lanes
        for row in rows:
            store(row, [here], fill(T.int32(0), lanes))
        with T.serial(0, m) as i, T.serial(0, columns // step) as part:
            for n, row in enumerate(rows):
                store(row, [here], row[here] | x[i, span(part * step + n * lanes, lanes)])
        for n, row in enumerate(rows):
            store(out, [n, here], row[here])
    run = built(made[0])
    args = tensors(np.ones((1 << 14, columns), np.int32), np.zeros((count, lanes), np.int32))
    return 4 * columns * (1 << 14) / least(lambda: run(*args), 8)


def products(n: int, k: int, m: int, copies: int = 1, bits: int = 8) -> Row:
    """A product in 8 bits, or in blocks of 4; with copies, of weights that no cache holds."""
    draw, (linear, pack, round_rows, rounded_size) = np.random.default_rng(0), FORMS[bits]
    run = built(linear(n, k, 3, EIGHT))
    of_rows = built(round_rows(k, 3, EIGHT))
    packed = pack(draw.normal(size=(n, k)).astype(np.float32), EIGHT)
    weights = tensors(*[packed] * copies)
    x = draw.normal(size=(1, m, k)).astype(np.float32)
    size = rounded_size(k)
    source, words, out = tensors(
        x, np.zeros((1, m, size), np.int32), np.zeros((1, m, n), np.float32)
    )
    of_rows(source, words)
    seconds = least(lambda: [run(words, each, out) for each in weights]) / copies
    bound = "bytes" if m > 1 else "memory"
    return Row(
        f"{bits} bits, [{m}, {k}] x [{k}, {n}]", seconds, 2 * n * k * m, packed.nbytes, bound
    )


def in_float(n: int, k: int, m: int) -> Row:
    """The same in float32."""
    draw = np.random.default_rng(0)
    run = built(matmul.linear(n, k, 3, EIGHT, bias=False))
    packed = matmul.pack(draw.normal(size=(n, k)).astype(np.float32), EIGHT)
    x = draw.normal(size=(1, m, k)).astype(np.float32)
    args = tensors(x, packed, np.zeros((1, m, n), np.float32))
    seconds = least(lambda: run(*args))
    name = f"float32, [{m}, {k}] x [{k}, {n}]"
    return Row(name, seconds, 2 * n * k * m, packed.nbytes, "float32")


def attention(length: int, tiles: Tiles, copies: int = 1) -> Row:
    """Attention of a chunk, or of one token, behind `USED` entries."""
    draw, layer = np.random.default_rng(0), LAYER
    run = built(cached_attention(layer, tiles))

    def normal(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32)

    heads = (1, length, layer.query_heads, layer.size)
    entries, cache = (1, length, layer.kv_heads, layer.size), (1, layer.kv_heads, CAPACITY, 64)
    used = np.array([USED], np.int32)
    arrays = [normal(*heads), *(normal(*entries) for _ in "kv")]
    caches = [[normal(*cache), normal(*cache)] for _ in range(copies)]
    calls = [tensors(*arrays, *each, used, np.zeros(heads, np.float32)) for each in caches]
    seconds = least(lambda: [run(*args) for args in calls]) / copies
    seen = length * (USED + (length + 1) / 2)
    read = 2 * 4 * layer.kv_heads * layer.size * (USED + length)
    bound = "memory" if length == 1 else "bf16" if tiles.bf16 else "float32"
    name = f"attention of {length}, {'bfloat16' if tiles.bf16 and length > 1 else 'float32'}"
    return Row(name, seconds, 4 * seen * layer.query_heads * layer.size, read, bound)


def picture(rows: list[Row], peaks: dict[str, float], path: Path) -> None:
    """The rooflines, and the kernels below them."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    across = np.logspace(-1, 4, 200)
    for name, color in zip(("bytes", "bf16", "float32"), ("C0", "C1", "C2"), strict=True):
        if name in peaks:
            roof = np.minimum(peaks[name], across * peaks["memory"]) / 1e9
            axes.plot(across, roof, color, label=f"peak, {name}", zorder=1)
    for number, row in enumerate(rows):
        place = row.operations / row.bytes, row.operations / row.seconds / 1e9
        axes.scatter(*place, color=f"C{number}", edgecolor="black", label=row.name, zorder=2)
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte of weights or cache")
    axes.set(ylabel="billions of operations a second", title="Kernels of tvm:cpu, one core")
    axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    kinds = ["bytes", "float32", *(["bf16"] if HALF.bf16 else [])]
    peaks = {kind: peak(kind, HALF) for kind in kinds} | {"memory": bandwidth()}
    print(f"level {LEVEL}, one thread; peaks:")
    for kind, most in peaks.items():
        print(f"  {kind:8s} {most / 1e9:7.0f} {'GB/s' if kind == 'memory' else 'G operations/s'}")
    rows = [products(n, k, CHUNK) for n, k in ((1536, 576), (576, 1536), (576, 576))]
    rows += [products(n, k, CHUNK, bits=4) for n, k in ((1536, 576), (576, 1536))]
    rows += [in_float(1536, 576, CHUNK), attention(CHUNK, EIGHT)]
    rows += [attention(CHUNK, HALF)] if HALF.bf16 else []
    rows += [products(1536, 576, 1, COPIES), products(49152, 576, 1, 4)]
    rows += [products(1536, 576, 1, COPIES, bits=4)]
    rows += [attention(1, HALF, COPIES)]
    for row in rows:
        rate = (row.bytes if row.bound == "memory" else row.operations) / row.seconds
        share = rate / peaks[row.bound]
        unit = "GB/s" if row.bound == "memory" else "G op/s"
        print(
            f"{row.name:36s} {1e3 * row.seconds:7.3f} ms {rate / 1e9:7.0f} {unit:6s} "
            f"{share:4.0%} of {row.bound}"
        )
    if args.output:
        picture(rows, peaks, args.output)


if __name__ == "__main__":
    main()
