"""Memory that a tokenizer takes, by the size of its vocabulary: Linux only.

python docs/measure/tokenizer.py m.lcc/tokenizer.json [--sizes 49152,128256,256000]

Larger vocabularies are made of the given one (byte-level BPE), with merges drawn at random. Each is
loaded in a process of its own; what stays, and the most while it is loaded.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path


def grown(page: dict, size: int) -> dict:
    """The same tokenizer with merges of words and pieces, until it has `size` tokens."""
    vocabulary, merges = page["model"]["vocab"], page["model"]["merges"]
    words = [token for token in vocabulary if token.startswith("\u0120") and len(token) <= 8]
    pieces = [token for token in vocabulary if token.isascii() and token.isalpha()]
    pieces = [piece for piece in pieces if 2 <= len(piece) <= 5]
    draw, next_id = random.Random(0), max(vocabulary.values()) + 1
    while len(vocabulary) < size:
        word, piece = draw.choice(words), draw.choice(pieces)
        if word + piece not in vocabulary:
            vocabulary[word + piece], next_id = next_id, next_id + 1
            merges.append([word, piece])
    return page


def measure(path: str) -> None:
    """Load it, and print its size and what that took in MB."""
    from tokenizers import Tokenizer

    from lcc.runtime.stats import peak_rss_bytes

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    before = resident()
    tokenizer = Tokenizer.from_file(path)
    most = (peak_rss_bytes() or 0) / 1e6
    size = tokenizer.get_vocab_size()
    print(f"{size:7} tokens: {resident() - before:.0f} MB, at most {most - before:.0f}", flush=True)


def main() -> None:
    """Measure each size, or the file that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer")
    parser.add_argument("--sizes", default="49152,128256,256000")
    parser.add_argument("--this", action="store_true", help="as it is, in this process")
    options = parser.parse_args()
    if options.this:
        measure(options.tokenizer)
        return
    for size in map(int, options.sizes.split(",")):
        page = json.loads(Path(options.tokenizer).read_text(encoding="utf-8"))
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(grown(page, size), file)
            file.flush()
            subprocess.run([sys.executable, __file__, file.name, "--this"], check=True)


if __name__ == "__main__":
    main()
