"""What a process holds that reads with an artifact, by kind of memory: Linux only.

python docs/measure/memory_parts.py m.lcc BOOK.txt

A line when all is imported, when the artifact is loaded, when 4,096 tokens were read, and when the
session is gone again: heap and large blocks are what was allocated, files what was read of
libraries and weights.
"""

import argparse
import collections
import importlib
import re
from pathlib import Path


def held() -> dict[str, float]:
    """Kind of memory -> MB resident now, of this process."""
    sizes: collections.Counter[str] = collections.Counter()
    kind = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
            name = found[1]
            kind = "heap" if name == "[heap]" else "weights file" if ".bin" in name else "libraries"
            kind = kind if name else "blocks"
        elif found := re.match(r"Rss: +(\d+) kB", line):
            sizes[kind] += int(found[1])
    return {kind: size * 1024 / 1e6 for kind, size in sizes.items()}


def main() -> None:
    """Load, read, and look in between."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact")
    parser.add_argument("book")
    options = parser.parse_args()

    for name in ("onnxruntime", "tokenizers"):  # which the runtime imports when it loads
        importlib.import_module(name)
    import lcc.runtime

    def tell(when: str) -> None:
        parts = held()
        each = ", ".join(f"{kind} {size:.0f}" for kind, size in sorted(parts.items()))
        print(f"{when:<9} {sum(parts.values()):4.0f} MB: {each}")

    tell("imported")
    session = lcc.runtime.open(options.artifact, threads=2, verify="size")
    tell("loaded")
    with open(options.book, encoding="utf-8") as file:
        session.feed(session.encode(file.read(40_000))[:4096])
    tell("read")
    del session
    tell("deleted")


if __name__ == "__main__":
    main()
