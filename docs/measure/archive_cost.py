"""What an archive costs: reading with and without one, a recall over it, and the memory of both.

python docs/measure/archive_cost.py model.lcc --haystack ESSAYS [--compared 8192]
    [--tokens 100000] [--threads 2]

Two sessions of one model read the same text in turn, a piece at a time, so that both see the same
machine. Then the one with an archive reads on, and a question is asked from time to time.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import lcc.runtime
from lcc.measure.evaluate.haystack import read_haystack
from lcc.runtime.session import Session

PIECE = 1024
QUESTION = "What did the author say about the first company that he began?"


def held() -> float:
    """MB resident now, of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def seconds_of(session: Session, ids: list[int]) -> float:
    """How long it takes to read some tokens."""
    begin = time.perf_counter()
    session.feed(ids)
    return time.perf_counter() - begin


def asked(session: Session) -> str:
    """A line about a question asked now."""
    for _ in session.generate(QUESTION, max_new_tokens=1):
        break
    stats = session.stats()
    return (
        f"{stats.archive_rows:>8,} rows  {(stats.archive_bytes or 0) / 1e6:7.0f} MB on disk  "
        f"{stats.recall_seconds:6.2f} s of recalls so far  {held():6.0f} MB held"
    )


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--haystack", type=Path, required=True)
    parser.add_argument("--compared", type=int, default=8192, help="tokens that both read")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=16_384, help="tokens between two questions")
    parser.add_argument("--dtype", default="float16", help="of keys and values in the archive")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = lcc.runtime.load(args.artifact, threads=args.threads, allow_native=True)
    text = " ".join(read_haystack(args.haystack))
    ids = model.session().encode(text)
    ids *= -(-args.tokens // len(ids))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "a.lccarchive")
        plain, kept = model.session(), model.session(archive=path, archive_dtype=args.dtype)
        times: list[tuple[float, float]] = []
        for number, first in enumerate(range(0, args.compared, PIECE)):
            part, pair = ids[first : first + PIECE], [plain, kept]
            seconds = [seconds_of(each, part) for each in pair[:: 1 if number % 2 else -1]]
            times.append((seconds[0], seconds[1]) if number % 2 else (seconds[1], seconds[0]))
        ratio = statistics.median(b / a for a, b in times)
        total = [sum(each) for each in zip(*times, strict=True)]
        print(f"{args.compared} tokens: {total[0]:.1f} s without, {total[1]:.1f} s with an archive")
        print(f"with / without: median of pieces {ratio:.3f}, of all {total[1] / total[0]:.3f}")
        del plain
        for first in range(args.compared, args.tokens, args.every):
            print(asked(kept), flush=True)
            seconds_of(kept, ids[first : min(args.tokens, first + args.every)])
        print(asked(kept))


if __name__ == "__main__":
    main()
