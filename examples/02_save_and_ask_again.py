"""Read a text once, keep what was distilled from it in a file, and ask from there again and again.

    python examples/02_save_and_ask_again.py smollm2.lcc book.txt "Who tells it?" "Where is it set?"

The state does not depend on the questions: the default catalyst knows nothing of them.
"""

import argparse
from pathlib import Path

import lcc.runtime


def main() -> None:
    """Read and save unless a state is there, then answer each question from the same state."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("questions", nargs="+")
    options = parser.parse_args()
    state = options.text.with_suffix(".lccstate")

    session = lcc.runtime.open(options.artifact)
    if not state.exists():
        session.feed(options.text.read_text(encoding="utf-8"))
        session.save(state, dtype="float16")  # half the size; float32 keeps every bit
        print(f"{session.tokens} tokens became {state.stat().st_size} bytes in {state}")

    for question in options.questions:
        session.load(state)  # exactly as after the reading, whatever was asked before
        answer = session.generate(question, chat=True, max_new_tokens=64)
        print(f"{question}\n  {''.join(answer)}")


if __name__ == "__main__":
    main()
