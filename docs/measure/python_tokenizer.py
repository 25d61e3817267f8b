"""Python's tokenizer with the native library and without: ids, start and memory. Linux only.

python docs/measure/python_tokenizer.py --library liblcc.so qwen=qwen.gguf smollm2=smollm2

Start: seconds from the start of a process to the ids of its first text, with what the runtime
imports; memory: the most that the process had then, and what of it are pages of its own. The best
of five, one after the other.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from native_tokenizer import documents, drawn, tokenizer_page

from lcc.artifact.schedule import TextFacts
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.sources.text_tables.build import build

START = """
import time, sys
import lcc.runtime
from lcc.artifact.schedule import TextFacts
from lcc.runtime.text.tokenizer import Tokenizer
ids = Tokenizer(sys.argv[1], facts=TextFacts()).encode("It was the best of times.")
lines = open("/proc/self/status").read().split("\\n")
kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
now = time.clock_gettime(time.CLOCK_BOOTTIME)
begin = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19]) / 100
print(now - begin, kilobytes["VmHWM"], kilobytes["RssAnon"])
"""


def started(folder: Path, library: Path | None) -> tuple[float, float, float]:
    """Seconds, peak MB, and MB of the process's own."""
    variables = {**os.environ, "LCC_LIBRARY": str(library or "")}  # noqa: TID251
    command = [sys.executable, "-c", START, str(folder)]
    runs = []
    for _ in range(5):
        output = subprocess.run(command, check=True, capture_output=True, env=variables).stdout
        seconds, peak, own = map(float, output.split())
        runs.append((seconds, peak / 1024, own / 1024))
    return min(runs)


def differences(folder: Path, library: Path, texts: list[str]) -> int:
    """Texts whose ids differ, or what they are decoded to."""
    wanted = Tokenizer(folder)
    os.environ["LCC_LIBRARY"] = str(library)  # noqa: TID251
    got = Tokenizer(folder, facts=TextFacts())
    wrong = 0
    for text in texts:
        ids = wanted.encode(text)
        same = got.encode(text) == ids
        same = same and got.literals.mark(text) == wanted.literals.mark(text)
        wrong += not (same and got.decode(ids) == wanted.decode(ids))
    return wrong


def main() -> None:
    """Print a row of a table for each tokenizer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizers", nargs="+", help="as of native_tokenizer.py")
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--strings", type=int, default=20_000)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251
    from tokenizers import Tokenizer as Library

    texts = documents(options.texts)
    print(f"{sum(len(text.encode()) for text in texts) / 1e6:.1f} MB", file=sys.stderr)
    print("| tokenizer | by | differences | start | peak memory | of its own |")
    print("| --- | --- | --- | --- | --- | --- |")
    for each in options.tokenizers:
        name, _, source = each.partition("=")
        with tempfile.TemporaryDirectory() as place:
            folder, backend = Path(place), Library.from_str(tokenizer_page(source))
            backend.no_truncation()
            backend.no_padding()
            backend.save(str(folder / "tokenizer.json"))
            (folder / "text.bin").write_bytes(build(backend))
            added = [token.content for token in backend.get_added_tokens_decoder().values()]
            strings = list(drawn(options.strings, added or ["<s>"]))
            wrong = differences(folder, options.library.resolve(), [*texts, *strings])
            for how, library in (("tokenizers", None), ("liblcc", options.library.resolve())):
                seconds, peak, own = started(folder, library)
                told = wrong if library else ""
                row = f"{told} | {seconds:.2f} s | {peak:.0f} MB | {own:.0f} MB"
                print(f"| {name} | {how} | {row} |", flush=True)


if __name__ == "__main__":
    main()
