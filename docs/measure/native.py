"""The native runtime beside Python's: the same answer, speed, memory, and time to the first token.

python docs/measure/native.py model.lcc --text BOOK --lcc-run build/lcc-run --engine LIBRARY
    [--tokens 32768] [--new 64] [--threads 2] [--rounds 2]

Both read the first `--tokens` of a text and write `--new` greedy tokens behind a question, in turn,
each in a process of its own: `lcc run` and `lcc-run`, with the same flags. What they print must be
the same. Then each starts with a prompt of one word, and the time until it has ended is told.
For targets of TVM, LIBRARY is the folder where pip has put apache-tvm.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lcc.runtime

SPEED = re.compile(r"^(prefill|decode)\s.*?([\d.,]+) tokens/s", re.MULTILINE)
Figures = dict[str, float]


def text_of(artifact: Path, book: Path, tokens: int) -> str:
    """The beginning of a text, of so many tokens."""
    session = lcc.runtime.open(artifact, threads=1, allow_native=True)
    ids = session.encode(book.read_text(encoding="utf-8"))
    if len(ids) < tokens:
        sys.exit(f"{book} has {len(ids)} tokens, wanted {tokens}")
    return session.decode(ids[:tokens])


def run(command: list[str], variables: dict[str, str]) -> tuple[str, Figures]:
    """What a process prints, and what it took."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=variables)
        assert process.stdout is not None
        answer = process.stdout.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        words = said.read()
    if status:
        sys.exit(f"{' '.join(command)}:\n{words}")
    figures = {name: float(speed.replace(",", "")) for name, speed in SPEED.findall(words)}
    figures |= {"peak MB": used.ru_maxrss / 1e3, "seconds": time.perf_counter() - begin}
    return answer, figures


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--lcc-run", type=Path, required=True)
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    variables = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}  # noqa: TID251
    variables["LCC_ONNXRUNTIME"] = variables["LCC_TVM"] = str(args.engine)
    ways = {"python": [sys.executable, "-m", "lcc", "run"], "native": [str(args.lcc_run)]}
    told: dict[str, list[Figures]] = {name: [] for name in ways}
    begun: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as place:
        book = Path(place, "book.txt")
        book.write_text(text_of(args.artifact, args.text, args.tokens), encoding="utf-8")
        common = [str(args.artifact), "--temperature", "0", "--threads", str(args.threads), "-v"]
        common.append("--allow-native")
        asked = ["--file", str(book), "--prompt", "What is this about?", "-n", str(args.new)]
        for _ in range(args.rounds):
            answers = {}
            for name, command in ways.items():
                answers[name], figures = run([*command, *common, *asked], variables)
                told[name].append(figures)
                print(name, {key: round(value, 1) for key, value in figures.items()}, flush=True)
                one = [*command, *common, "--prompt", "Hi", "-n", "1"]
                begun[name].append(run(one, variables)[1]["seconds"])
            same = answers["python"].strip() == answers["native"].strip()
            print(f"the same answer: {same}", flush=True)
            if not same:
                print(answers)
    for name in ways:
        medians = {
            key: statistics.median(each[key] for each in told[name]) for key in told[name][0]
        }
        print(
            f"{name:7} reads {medians['prefill']:7.1f} tokens/s, writes {medians['decode']:6.1f}, "
            f"peak {medians['peak MB']:6.0f} MB, start to end with one token "
            f"{statistics.median(begun[name]):5.2f} s"
        )


if __name__ == "__main__":
    main()
