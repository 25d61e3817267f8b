"""Steps before merging, with the automata and forms that they use, as sections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lcc.sources.text_tables.automaton import compile_pattern
from lcc.sources.text_tables.code_points import LIMIT
from lcc.sources.text_tables.forms import ALONE, BOUNDARY, COMPOSE, MAP, form_of
from lcc.sources.text_tables.layout import Kind, Op
from lcc.sources.text_tables.paged import paged
from lcc.sources.text_tables.steps import (
    BEHAVIOURS,
    Form,
    Prefix,
    Replace,
    Split,
    Step,
    Strip,
    escaped,
)

Tables = dict[tuple[Kind, int], bytes]


class Strings:
    """Texts in one section; each is its offset and size."""

    def __init__(self) -> None:
        self.data = b""

    def put(self, text: str) -> tuple[int, int]:
        """Where a text lies."""
        content = text.encode()
        place = self.data.find(content)
        if place < 0:
            place = len(self.data)
            self.data += content
        return place, len(content)


class StepTables:
    """Sections of a list of steps: five numbers each, op first."""

    def __init__(self, strings: Strings) -> None:
        self.sections: Tables = {}
        self.automata, self.forms = dict[str, int](), dict[str, int]()
        self._strings, self._rows = strings, list[tuple[int, ...]]()

    def put(self, steps: Sequence[Step]) -> None:
        """Append steps.

        Raises:
            Unfit: a pattern that no automaton does.
        """
        for step in steps:
            self._rows.append(self._row(step))
        self.sections[Kind.STEPS, 0] = np.array(self._rows, np.uint32).tobytes()

    def _row(self, step: Step) -> tuple[int, ...]:
        if isinstance(step, Form):
            return Op.FORM, self._form(step.name), 0, 0, 0
        if isinstance(step, Prefix):
            return Op.PREFIX, step.when, 0, *self._strings.put(step.content)
        if isinstance(step, Strip):
            return Op.STRIP, int(step.left), int(step.right), 0, 0
        if isinstance(step, Split):
            behaviour = BEHAVIOURS.index(step.behaviour)
            return Op.SPLIT, self._automaton(step.pattern), behaviour, int(step.invert), 0
        assert isinstance(step, Replace)
        content = self._strings.put(step.content)
        if step.literal and len(step.pattern.encode()) == 1:
            return Op.REPLACE_BYTE, ord(step.pattern), 0, *content
        pattern = escaped(step.pattern) if step.literal else step.pattern
        return Op.REPLACE, self._automaton(pattern), 0, *content

    def _automaton(self, pattern: str) -> int:
        if pattern not in self.automata:
            index = self.automata[pattern] = len(self.automata)
            found = compile_pattern(pattern)
            pages, blocks = (Kind.CLASS_PAGES, index), (Kind.CLASS_BLOCKS, index)
            self.sections |= paged(found.class_of, pages, blocks)
            self.sections[Kind.TRANSITIONS, index] = found.next.tobytes()
        return self.automata[pattern]

    def _form(self, name: str) -> int:
        if name not in self.forms:
            index = self.forms[name] = len(self.forms)
            self.sections |= _form_sections(name, index)
        return self.forms[name]


def _form_sections(name: str, index: int) -> Tables:
    form = form_of(name)
    which = np.zeros(LIMIT, np.uint16)
    records = [(BOUNDARY | ALONE, 0)]
    letters = list[int]()
    for number, (point, record) in enumerate(sorted(form.records.items()), 1):
        flags = record.boundary * BOUNDARY | record.alone * ALONE
        apart = [] if record.letters == chr(point) else list(map(ord, record.letters))
        records.append((flags | record.order << 8 | len(apart) << 16, len(letters)))
        letters += apart
        which[point] = number
    plain = not any(point < 128 for point in form.records)
    pairs = [(a, b, c) for (a, b), c in sorted(form.pairs.items())]
    head = (form.mode, int(form.mode != MAP), int(plain), int(form.mode == COMPOSE))
    return {
        (Kind.FORM_HEAD, index): np.array(head, np.uint32).tobytes(),
        **paged(which, (Kind.FORM_PAGES, index), (Kind.FORM_BLOCKS, index)),
        (Kind.FORM_RECORDS, index): np.array(records, np.uint32).tobytes(),
        (Kind.FORM_LETTERS, index): np.array(letters, np.uint32).tobytes(),
        (Kind.FORM_PAIRS, index): np.array(pairs, np.uint32).tobytes(),
    }
