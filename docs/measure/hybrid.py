"""What a hybrid saves: bytes, prefill and decode against dense, beside what arithmetic promises.

SIZES="--policy none --positions absolute --capacity 33280 --budget 16384"
lcc compile smollm2 -o dense.lcc $SIZES
lcc compile smollm2 -o hybrid.lcc $SIZES --plan longgen
python docs/measure/hybrid.py dense.lcc hybrid.lcc [--tokens 4096,8192,16384,32768] [--plot out.png]

Each length by itself, with caches that just hold it, both artifacts in turn: ratios are dense over
hybrid, medians of the rounds. Beyond the trained window the numbers say nothing, but take as long.

Promised: multiplications a token, and bytes that a step reads (weights, and the entries seen).
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import lcc.runtime
from lcc.artifact.manifest import Manifest, read_manifest
from lcc.ir.plan import BlockSparse, Full
from lcc.measure.evaluate.haystack import NOISE

NEW = 32


def seen(manifest: Manifest, tokens: int) -> list[tuple[float, float]]:
    """Of each layer, entries seen by a query: the mean while `tokens` are read, and at their end.

    A sparse layer multiplies all that it holds, seen or not: what its pattern sees, and
    of windows the rest of the room; of blocks, on the average half a chunk.
    """
    rows = []
    for layer in manifest.model.layers:
        kind = layer.kind
        if isinstance(kind, Full):
            rows.append((tokens / 2, float(tokens)))
        elif isinstance(kind, BlockSparse):
            held = [held_by(kind, end) for end in range(64, tokens + 1, 64)]
            more = manifest.cache.chunk_size / 2
            rows.append((sum(held) / len(held) + more, held[-1] + more))
        else:
            slots = float(min(layer.slots or 0, tokens))
            rows.append((slots, slots))
    return rows


def held_by(kind: BlockSparse, tokens: int) -> int:
    """Entries of a text of so many tokens that its last query sees."""
    return int(kind.sees(tokens - 1, np.arange(tokens), 0).sum())


def promised(dense: Manifest, hybrid: Manifest, tokens: int) -> tuple[float, float]:
    """Ratio of the multiplications of a prefill, and of the bytes that a decode step reads."""
    held = next(row.bytes for row in dense.memory if row.name == "weights")
    embedding = 4 * dense.model.vocab_size * dense.model.hidden_size
    linear = (held - 2 * embedding) / 4  # a multiplication a weight; the head is for one token only
    work, read = [], []
    for manifest in (dense, hybrid):
        rows = list(zip(manifest.model.layers, seen(manifest, tokens), strict=True))
        work.append(linear + sum(2 * e.query_heads * e.head_size * m for e, (m, _) in rows))
        entries = sum(8 * e.kv_heads * e.head_size * last for e, (_, last) in rows)
        read.append(held - embedding + entries)
    return work[0] / work[1], read[0] / read[1]


def measure(folder: Path, tokens: int, threads: int) -> tuple[float, float, int]:
    """Seconds of prefill, seconds of a decode step, bytes of the cache."""
    chunk = read_manifest(folder).cache.chunk_size
    capacity = tokens + chunk + NEW + 64
    session = lcc.runtime.open(
        folder, capacity=capacity, budget=tokens // 2, threads=threads, verify="size"
    )
    ids = (session.encode(NOISE) * tokens)[:tokens]
    session.feed(ids[:512], prefix=False)
    session.reset()
    begin = time.perf_counter()
    session.feed(ids, prefix=False)
    prefill = time.perf_counter() - begin
    written = session.generate_ids(max_new_tokens=NEW + 1, eos=[])
    next(written)
    begin = time.perf_counter()
    count = sum(1 for _ in written)
    return prefill, (time.perf_counter() - begin) / count, session.stats().cache_bytes


def plot(rows: list[tuple[int, list[float], list[float]]], path: Path) -> None:
    """Ratios over length, and what was promised."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4))
    lengths = [tokens for tokens, _, _ in rows]
    for i, (name, colour) in enumerate(zip(("bytes", "prefill", "decode"), "gbr", strict=True)):
        axis.plot(lengths, [row[1][i] for row in rows], f"{colour}o-", label=name)
        axis.plot(lengths, [row[2][i] for row in rows], f"{colour}:", label=f"{name}, promised")
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axis.set(xlabel="tokens", ylabel="dense / hybrid", ylim=(0, None))
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """One row per length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path)
    parser.add_argument("hybrid", type=Path)
    parser.add_argument("--tokens", default="4096,8192,16384,32768")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    pages = [read_manifest(folder) for folder in (options.dense, options.hybrid)]
    rows = []
    for tokens in map(int, options.tokens.split(",")):
        found: list[list[float]] = []
        for _ in range(options.rounds):
            both = [
                measure(folder, tokens, options.threads)
                for folder in (options.dense, options.hybrid)
            ]
            found.append([a / b for a, b in zip(*both, strict=True)])
            parts = [f"{tokens / p:.0f} and {1 / d:.1f} tokens/s" for p, d, _ in both]
            print(
                f"{tokens:,}: prefill and decode, dense {parts[0]}, hybrid {parts[1]}", flush=True
            )
        prefill, decode, size = (statistics.median(column) for column in zip(*found, strict=True))
        work, read = promised(*pages, tokens)
        print(
            f"{tokens:,}: dense / hybrid: bytes {size:.2f}, prefill {prefill:.2f} (promised "
            f"{work:.2f}), decode {decode:.2f} (promised {read:.2f})",
            flush=True,
        )
        rows.append((tokens, [size, prefill, decode], [size, work, read]))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
