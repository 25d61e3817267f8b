"""An app that embeds the runtime: read a text with a progress line, stream an answer, look inside.

    python examples/01_embed_in_an_app.py smollm2.lcc book.txt "Who is the narrator?"

Only the base install is needed: no torch, no transformers.
"""

import argparse
import sys
from pathlib import Path

import lcc.runtime


def main() -> None:
    """Read, answer, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("question")
    options = parser.parse_args()

    session = lcc.runtime.open(options.artifact)

    # Called after every cycle: the moment when something was forgotten, and what was kept.
    session.on_cycle = lambda cycle: print(
        f"after {cycle.tokens} tokens: {cycle.used_before} entries became {cycle.used_after}",
        file=sys.stderr,
    )
    session.feed(
        options.text.read_text(encoding="utf-8"),
        progress=lambda at: print(f"\r{at.fraction:4.0%}", end="", file=sys.stderr),
    )

    # An iterator of text; leaving the loop stops the generation, and the session stays usable.
    for piece in session.generate(options.question, chat=True, max_new_tokens=64):
        print(piece, end="", flush=True)
    print()

    stats = session.stats()
    print(f"{stats.tokens} tokens in {stats.cache_bytes / 1e6:.1f} MB of cache", file=sys.stderr)


if __name__ == "__main__":
    main()
