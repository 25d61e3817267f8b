"""What the shipped heads were trained on: texts anyone may use, and tasks made from a seed.

python docs/measure/heads_data.py FOLDER [--bible bible.txt] [--pieces 150]

Writes FOLDER/data.jsonl: pieces of the King James Bible, where given (as Debian's bible-kjv-text
prints it, `bible -f ge1:1-re22:21`), and of Python's own reference topics (PSF licence); then
as many made-up ones: records, facts in prose, one fact in noise, dialogues. No text of a test.
"""

import argparse
import json
import pydoc_data.topics
import random
import re
from pathlib import Path

from wonderwords import RandomWord

WORDS = {
    kind: sorted(RandomWord().filter(include_parts_of_speech=[kind]))
    for kind in ("noun", "adjective")
}
TOKENS = 1100  # about, of a piece


def word(draw: random.Random, kind: str = "noun") -> str:
    """A word of a kind, the same for the same seed."""
    return draw.choice(WORDS[kind])


def records(draw: random.Random, sentences: list[str]) -> str:
    """Keys and values, one a line."""
    rows = [f"{word(draw)}-{word(draw)}: {draw.randint(1000, 9_999_999)}" for _ in range(70)]
    return "\n".join(rows)


def facts(draw: random.Random, sentences: list[str]) -> str:
    """Prose with a few facts in it that nothing predicts."""
    rows = [draw.choice(sentences) for _ in range(36)]
    for _ in range(5):
        name, value = f"{word(draw, 'adjective')} {word(draw)}", draw.randint(100, 99_999_999)
        kinds = (
            f"The number of the {name} is {value}.",
            f"Remember that the {name} costs {value} coins.",
            f"The code for the {name} was changed to {value}.",
            f"Call the {name} at {value}.",
        )
        rows.insert(draw.randrange(len(rows)), draw.choice(kinds))
    return " ".join(rows)


def noise(draw: random.Random, sentences: list[str]) -> str:
    """The same few sentences again and again, one fact among them."""
    few = " ".join(draw.choice(sentences) for _ in range(4))
    rows = [few] * max(2, 4200 // len(few))
    fact = f"The secret word is {word(draw)} and the secret number is {draw.randint(1000, 99999)}."
    rows.insert(draw.randrange(len(rows)), fact)
    return " ".join(rows)


def dialogue(draw: random.Random, sentences: list[str]) -> str:
    """Two people, each sentence somebody's."""
    names = [word(draw).title(), word(draw).title()]
    return "\n".join(f"{names[i % 2]}: {draw.choice(sentences)}" for i in range(34))


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bible", type=Path)
    parser.add_argument("--pieces", type=int, default=150)
    options = parser.parse_args()
    draw = random.Random(0)
    topics = "\n\n".join(pydoc_data.topics.topics.values())
    texts = [re.sub(r"[ \t]+", " ", topics)]
    if options.bible:
        verses = options.bible.read_text(encoding="utf-8")
        texts.append(re.sub(r"^\w+\d*:\d+ ", "", verses, flags=re.MULTILINE))
    sentences = [s for t in texts for s in re.split(r"(?<=[.!?])\s+", t) if 40 < len(s) < 200]
    options.folder.mkdir(parents=True, exist_ok=True)
    # Pieces from everywhere, half of each text: whole texts would be millions of tokens.
    pieces = []
    for text in texts:
        for _ in range(options.pieces // 2):
            start = draw.randrange(max(1, len(text) - 4 * TOKENS))
            pieces.append(text[start : start + 4 * TOKENS])
    tasks = [records, facts, noise, dialogue]
    pieces += [tasks[i % 4](draw, sentences) for i in range(options.pieces)]
    with (options.folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for piece in pieces:
            file.write(json.dumps({"prompt": piece}, ensure_ascii=False) + "\n")
    print(f"{len(pieces)} pieces in {options.folder / 'data.jsonl'}")


if __name__ == "__main__":
    main()
