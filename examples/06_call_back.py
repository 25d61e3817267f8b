"""Read a text with an archive beside it: each question calls back what it asks for.

    python examples/06_call_back.py smollm2.lcc book.txt "Who tells it?" "Where is it set?"

Memory stays as compiled; the archive grows on disk with the text, and nothing that was read is
lost. Only the base install is needed.
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
    archive = options.text.with_suffix(".lccarchive")  # belongs to the state: keep both together

    session = lcc.runtime.open(options.artifact, archive=archive)
    if state.exists():
        session.load(state)
    else:
        session.feed(options.text.read_text(encoding="utf-8"))
        session.save(state)
    print(f"{session.tokens} tokens were read, {session.used} are in the cache")

    for question in options.questions:
        session.load(state)  # as after the reading; the archive goes back to the same place
        answer = "".join(session.generate(question, chat=True, max_new_tokens=64))
        stats = session.stats()
        print(f"{question}\n  {answer}\n  {stats.recalled} of {stats.archive_rows} came back")
    session.close()  # waits for the disk, and lets others open the archive


if __name__ == "__main__":
    main()
