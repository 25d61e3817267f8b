"""Resident memory and speed while one long text is read: flat, or not.

python docs/measure/memory.py model.lcc [--text book.txt | --every-id] [--tokens 65536]

Prints, for every 4,096 tokens, their rate and the peak resident memory so far; then the two ratios
that matter. A text begins again where it does not suffice. Without one it is noise with a pass key
in its middle, which is asked for at the end; with --every-id, each token of the vocabulary once.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import lcc.runtime
from lcc.measure.evaluate.haystack import NOISE
from lcc.measure.evaluate.tasks.infinitebench import (
    PASSKEY,
    PASSKEY_INTRODUCTION,
    PASSKEY_PREFIX,
    PASSKEY_QUESTION,
)
from lcc.runtime.session import Session
from lcc.runtime.stats import peak_rss_bytes

BLOCK = 4096
KEY = 71432


def main() -> None:
    """Read block by block."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--text", type=Path)
    text.add_argument("--every-id", action="store_true")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    session = lcc.runtime.open(options.artifact, threads=options.threads)
    is_noise = options.text is None and not options.every_id
    blocks = noise(session, options.tokens) if is_noise else real(session, options)
    seconds, peaks = [], []
    for block in blocks:
        begin, before = time.perf_counter(), session.tokens
        session.feed(block)
        seconds.append((time.perf_counter() - begin) * BLOCK / (session.tokens - before))
        peaks.append((peak_rss_bytes() or 0) / 1e6)
        rate = BLOCK / seconds[-1]
        print(
            f"{session.tokens:8} tokens  {rate:6.0f} tokens/s  peak {peaks[-1]:6.1f} MB", flush=True
        )
    if is_noise:
        question = f"\n{PASSKEY_QUESTION} {PASSKEY_PREFIX}"
        answer = "".join(session.generate(question, max_new_tokens=24))
        print(f"wanted {KEY}, answered {answer!r}")
    weights = sum(e.bytes for n, e in session.manifest.files.items() if n.startswith("weights"))
    cache = session.stats().cache_bytes
    print(f"peak grew by {peaks[-1] - peaks[0]:.1f} MB from the first block to the last")
    if len(seconds) > 2:
        ratio = seconds[-2] / seconds[1]
        print(f"second-to-last block / second block: {ratio:.3f} x the time")
    limit = 1.3 * weights / 1e6 + cache / 1e6 + 200
    print(f"peak {peaks[-1]:.0f} MB; 1.3 x weights + cache + 200 MB = {limit:.0f} MB")
    print(f"contract of the manifest: {sum(r.bytes for r in session.manifest.memory) / 1e6:.0f} MB")
    if options.picture:
        draw(options.picture, seconds, peaks)


def noise(session: Session, tokens: int) -> Iterator[str]:
    """Blocks of about 4,096 tokens, never the whole text: a pass key is in the middle one."""
    repeated = BLOCK // len(session.encode(f"{NOISE}\n"))
    count = tokens // BLOCK
    for index in range(count):
        key = f"{PASSKEY.format(value=KEY)}\n" if index == count // 2 else ""
        yield (f"{PASSKEY_INTRODUCTION}\n\n" if index == 0 else "") + f"{NOISE}\n" * repeated + key


def real(session: Session, options: argparse.Namespace) -> Iterator[list[int]]:
    """Blocks of 4,096 token ids: of a text, or of the whole vocabulary in random order."""
    if options.every_id:
        ids = list(range(session.manifest.model.vocab_size))
        random.Random(0).shuffle(ids)
    else:
        text = options.text.read_text(encoding="utf-8", errors="replace")
        ids = session.encode(text[: 6 * options.tokens])
        ids = (ids * (1 + options.tokens // len(ids)))[: options.tokens]
    return (ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK))


def draw(path: Path, seconds: list[float], peaks: list[float]) -> None:
    """Memory and speed over the text."""
    from matplotlib import pyplot

    at = [BLOCK * (i + 1) / 1024 for i in range(len(seconds))]
    _, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 4.5))
    above.plot(at, peaks)
    above.set(ylabel="peak memory, MB", ylim=(0, 1.2 * max(peaks)))
    below.plot(at, [BLOCK / s for s in seconds])
    below.set(
        ylabel="tokens/s", xlabel="thousand tokens read", ylim=(0, 1.2 * BLOCK / min(seconds))
    )
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
