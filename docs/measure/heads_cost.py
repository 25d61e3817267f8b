"""What retaining heads cost: reading with them over reading without, interleaved in one run.

python docs/measure/heads_cost.py locret.lcc sink_window.lcc [--tokens 4096] [--rounds 5]

The second artifact is the same model under a policy that only looks at slots: the ratio holds all
that the heads add to a step, and what their scores add to a cycle.
"""

import argparse
import statistics
import time
from pathlib import Path

import lcc.runtime
from lcc.measure.evaluate.haystack import NOISE


def main() -> None:
    """Read the same ids with both, in turns; the median of the ratios counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("heads", type=Path)
    parser.add_argument("without", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    paths = (options.heads, options.without)
    sessions = [lcc.runtime.open(path, threads=options.threads) for path in paths]
    ids = (sessions[0].encode(NOISE) * options.tokens)[: options.tokens]
    ratios = []
    for _ in range(options.rounds):
        seconds = []
        for session in sessions:
            session.reset()
            begin = time.perf_counter()
            session.feed(ids, prefix=False)
            seconds.append(time.perf_counter() - begin)
        ratios.append(seconds[0] / seconds[1])
        rates = ", ".join(f"{options.tokens / each:.0f} tokens/s" for each in seconds)
        print(f"with and without heads: {rates}; ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
