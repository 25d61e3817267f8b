"""Texts to learn from: token ids, of which the first are scored and the rest look back at them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lcc.artifact.heads_page import Teacher
from lcc.errors import ConfigError

Encode = Callable[[str], list[int]]
REPEAT = "\n\nRepeat the previous context exactly.\n\n"
REPEAT_TOKENS = 50  # no tokenizer makes more of it


@dataclass(frozen=True)
class Example:
    """One text.

    ids         token ids
    scored      how many of the first get a label; the tokens after them are what attends
    """

    ids: list[int]
    scored: int


def read_examples(
    path: Path, encode: Encode, *, teacher: Teacher, length: int, answer_size: int
) -> list[Example]:
    """Make examples of a file, or of every *.jsonl, *.txt and *.md file of a folder, by name.

    A line of JSON is one example, {"prompt": ..., "answer": ...}; a text is cut into pieces of
    `length` tokens, and its answer is how it goes on.

    teacher         answer: the answer looks back at the prompt (Locret, 3.2)
                    repeat: the prompt is read a second time, after the request to repeat it, and
                    looks back at itself (KVzip, arXiv 2505.23416): no question is needed
    length          tokens of a prompt, at most
    answer_size     tokens of an answer, at most

    Raises:
        ConfigError: nothing to learn from, or a line without a prompt (or, to teach answers,
            without an answer).
    """
    patterns = ("*.jsonl", "*.txt", "*.md")
    files = sorted({f for p in patterns for f in path.rglob(p)}) if path.is_dir() else [path]
    repeat = encode(REPEAT) if teacher == "repeat" else []
    examples = []
    for file in files:
        for prompt, answer in _pairs(file, encode, teacher, length, answer_size):
            prompt = prompt[:length]
            after = [*repeat, *prompt] if teacher == "repeat" else answer[:answer_size]
            if len(prompt) >= 16 and after:
                examples.append(Example([*prompt, *after], len(prompt)))
    if not examples:
        raise ConfigError(
            f"{path}: nothing to learn from; wanted *.jsonl with prompt and answer, *.txt or *.md, "
            "prompts of 16 tokens or more, each with what follows it"
        )
    return examples


def _pairs(
    file: Path, encode: Encode, teacher: Teacher, length: int, answer_size: int
) -> Iterator[tuple[list[int], list[int]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text, at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    if file.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _pair(f"{file}:{number}", line, encode, teacher)
        return
    ids, size = encode(text), length if teacher == "repeat" else length + answer_size
    for start in range(0, len(ids), size):
        piece = ids[start : start + size]
        cut = length if teacher == "repeat" else max(0, len(piece) - answer_size)
        yield piece[:cut], piece[cut:]


def _pair(where: str, line: str, encode: Encode, teacher: Teacher) -> tuple[list[int], list[int]]:
    try:
        page = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON: {error}") from None
    wanted = ("prompt",) if teacher == "repeat" else ("prompt", "answer")
    for name in wanted:
        if not isinstance(page, dict) or not isinstance(page.get(name), str) or not page[name]:
            raise ConfigError(f'{where}: wanted {{"prompt": text, "answer": text}}, no {name}')
    return encode(page["prompt"]), encode(str(page.get("answer", "")))


def split(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Training examples, and those held out: every so manieth, at least one of two or more."""
    if len(examples) < 2 or share <= 0:
        return examples, []
    step = max(2, round(1 / share))
    held = examples[step - 1 :: step] or examples[-1:]
    chosen = {id(each) for each in held}
    return [each for each in examples if id(each) not in chosen], held
