"""A step over a small and over a large cache that hold the same entries: the same time, or a copy.

python docs/measure/in_place.py model.lcc [--capacity 1200] [--steps 40] [--threads 1]

The artifact is loaded twice, once with less capacity (and a budget of half of it), and reads one
token after the other in both, in turn. Prints the medians and their ratio.
"""

import argparse
import statistics
import time
from pathlib import Path

import lcc.runtime

HELD = 64  # entries before the first step


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--capacity", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    less = {"capacity": options.capacity, "budget": options.capacity // 2}
    model = lcc.runtime.load(options.artifact, threads=options.threads, verify="size")
    sessions = [model.session(**less), model.session()]
    seconds: list[list[float]] = [[], []]
    for session in sessions:
        session.feed(list(range(100, 100 + HELD)), prefix=False)
    for step in range(options.steps):
        for session, own in zip(sessions, seconds, strict=True):
            begin = time.perf_counter()
            session.feed([500 + step], prefix=False)
            own.append(time.perf_counter() - begin)
    small, large = (1e3 * statistics.median(each[5:]) for each in seconds)
    for session, median in zip(sessions, (small, large), strict=True):
        size = session.stats().cache_bytes / 1e6
        print(f"capacity {session.capacity:,}, cache {size:.0f} MB: {median:.2f} ms a token")
    print(f"ratio {large / small:.3f}")


if __name__ == "__main__":
    main()
