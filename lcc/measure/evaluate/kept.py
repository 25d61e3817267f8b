"""Which tokens of a text are in the cache after every cycle, and by how many heads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lcc.runtime.session import Session

STEPS = 24  # cycles shown, at most
LEVELS = 9
OCCURRENCES = 20  # of an answer that are marked, at most


def heads_holding(session: Session) -> np.ndarray:
    """[tokens] int64: how many KV heads of all layers hold each token that was read."""
    counts = np.zeros(session.tokens, np.int64)
    for layer in range(len(session.manifest.model.layers)):
        counts += np.bincount(session.kept_tokens(layer).ravel(), minlength=session.tokens)
    return counts


class KeptWatch:
    """Looks at a session after each of its cycles, from where it is entered to `end`.

    steps       [tokens so far] uint16 each, from `heads_holding`
    """

    def __init__(self, session: Session) -> None:
        self.session, self.steps = session, list[np.ndarray]()

    def look(self) -> None:
        """Note what is held now."""
        self.steps.append(heads_holding(self.session).astype(np.uint16))

    def look_back(self) -> None:
        """Note what is held now of the text that was looked at last; more was read behind it."""
        count = len(self.steps[-1])
        self.look()
        self.steps[-1] = self.steps[-1][:count]

    def __enter__(self) -> KeptWatch:
        self._own = self.session.on_cycle
        self.session.on_cycle = lambda _: self.look()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.on_cycle = self._own

    def end(self) -> None:
        """Look once more, and no more after that: what follows is the question."""
        self.look()
        self.session.on_cycle = self._own

    def page(self, text: str, answers: Sequence[str]) -> dict[str, Any]:
        """What the report shows of the text that was read; see `kept_page`."""
        prefix = self.session.manifest.text.prefix
        ids = [*prefix, *self.session.encode(text)][-len(self.steps[-1]) :]
        heads = sum(layer.kv_heads for layer in self.session.manifest.model.layers)
        return kept_page(self.steps, spelled(self.session, ids), heads, answers)


def spelled(session: Session, ids: list[int]) -> list[str]:
    """The text of every token as it stands behind the one before it.

    A character of several tokens is the text of its last one; that of the others is empty.
    """
    from lcc.runtime.text.detokenize import Detokenizer

    detokenizer = Detokenizer(session.tokenizer.decode, ids[:1])
    texts = [detokenizer.add(token) for token in ids]
    if texts:
        texts[-1] += detokenizer.end()
    return texts


def kept_page(
    steps: list[np.ndarray], texts: list[str], heads: int, answers: Sequence[str]
) -> dict[str, Any]:
    """Pieces of text that went through all cycles alike.

    steps       [tokens read so far] counts of heads, after each cycle and at the end
    texts       of every token
    heads       KV heads of all layers: a token held by all of them has level 9, by one of them 1

    returns     heads; tokens: read at each step that is shown; pieces: [text, a character a step
                ("-" = not read yet, 0 to 9), 0 = text, 1 = the sentence with an answer, 2 = answer]
    """
    chosen = sorted({round(i) for i in np.linspace(0, len(steps) - 1, STEPS)})
    shown = [steps[i] for i in chosen]
    levels = np.full((len(shown), len(texts)), "-")
    for row, counts in zip(levels, shown, strict=True):
        row[: len(counts)] = np.ceil(counts / heads * LEVELS).astype(int).astype(str)
    marks = marked(texts, answers)
    histories = ["".join(column) for column in levels.T]
    pieces: list[list[Any]] = []
    for text, history, mark in zip(texts, histories, marks, strict=True):
        if pieces and pieces[-1][1:] == [history, mark]:
            pieces[-1][0] += text
        else:
            pieces.append([text, history, mark])
    return {"heads": heads, "tokens": [len(counts) for counts in shown], "pieces": pieces}


def marked(texts: list[str], answers: Sequence[str]) -> list[int]:
    """Of every token: 2 = part of an answer, 1 = of a sentence with one, 0 = neither."""
    whole = "".join(texts)
    marks = np.zeros(len(whole), np.int8)
    for answer in filter(None, answers):
        for found in list(re.finditer(re.escape(answer), whole, re.IGNORECASE))[:OCCURRENCES]:
            before = max(whole.rfind(end, 0, found.start()) for end in (". ", "! ", "? ", "\n"))
            after = [whole.find(end, found.end()) for end in (". ", "! ", "? ", "\n")]
            end = min((place + 1 for place in after if place >= 0), default=len(whole))
            begin = before + 1 if before >= 0 else 0
            marks[begin:end] = np.maximum(marks[begin:end], 1)
            marks[found.start() : found.end()] = 2
    ends = np.cumsum([len(text) for text in texts])
    starts = ends - [len(text) for text in texts]
    return [int(marks[a:b].max(initial=0)) for a, b in zip(starts, ends, strict=True)]
