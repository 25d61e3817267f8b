"""Target tvm:cpu against onnxruntime:cpu: the same model, the same text, in turns.

lcc compile smollm2 -o tvm.lcc --target tvm:cpu; lcc compile smollm2 -o ort.lcc
python docs/measure/tvm_speed.py tvm.lcc ort.lcc --tokens 7800 --rounds 3

Each measurement is a process of its own, so that neither engine's threads disturb the other's.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path


def one(folder: str, tokens: int, new: int, threads: int) -> None:
    """Print tokens/s of prefill and decode, and the peak of the resident memory."""
    from speed import run_lcc

    from lcc.runtime.stats import peak_rss_bytes

    prefill, decode = run_lcc(folder, tokens, new, threads)
    result = {"prefill": tokens / prefill, "decode": 1 / decode, "peak_mb": peak_rss_bytes() / 1e6}
    print(json.dumps(result))


def main() -> None:
    """Measure two artifacts in turns, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="of tvm:cpu, then of onnxruntime:cpu")
    parser.add_argument("--tokens", type=int, default=7800)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if len(options.folders) == 1:
        one(options.folders[0], options.tokens, options.new_tokens, options.threads)
        return
    flags = [
        f"--{name}={getattr(options, name.replace('-', '_'))}"
        for name in ("tokens", "new-tokens", "threads")
    ]
    results: list[list[dict]] = [[], []]
    for _ in range(options.rounds):
        for folder, rows in zip(options.folders, results, strict=True):
            command = [sys.executable, __file__, folder, *flags]
            line = subprocess.check_output(command, text=True).splitlines()[-1]
            rows.append(json.loads(line))
            print(Path(folder).name, line, flush=True)
    for phase in ("prefill", "decode", "peak_mb"):
        ratios = [a[phase] / b[phase] for a, b in zip(*results, strict=True)]
        print(f"{phase}: first / second {statistics.median(ratios):.2f}, all {ratios}")


if __name__ == "__main__":
    main()
