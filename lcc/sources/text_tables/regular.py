"""Regular patterns as the tokenizer library reads them, as trees.

The syntax is that of Oniguruma (Ruby). What a table-driven automaton cannot do, or would do
otherwise, is refused by name: references to groups, looking behind, looking ahead by more than one
character.
"""

from __future__ import annotations

import re

from lcc.sources.text_tables import code_points as cp
from lcc.sources.text_tables.pattern_nodes import Ahead, Choice, Node, One, Repeat, Sequence
from lcc.sources.text_tables.unfit import Unfit

_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a", "e": "\x1b"}
_SHORT = "sSdDwWhH"
_OWN_MEANING = re.compile(r"\\[dDwWhH]|\[:")
MOST = 1000  # repetitions


def parse(pattern: str) -> Node:
    """The tree of a pattern.

    Raises:
        Unfit: names what the tables have no place for.
    """
    reader = _Reader(pattern)
    node = reader.choice(fold=False)
    if reader.place < len(pattern):
        reader.refuse("unbalanced )")
    return node


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.place = pattern, 0

    def refuse(self, what: str) -> None:
        raise Unfit(f"pattern {self.pattern!r}, place {self.place}: {what}")

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.place)

    def take(self, text: str) -> bool:
        if self.peek(text):
            self.place += len(text)
            return True
        return False

    def next(self) -> str:
        if self.place >= len(self.pattern):
            self.refuse("the pattern ends too early")
        self.place += 1
        return self.pattern[self.place - 1]

    def until(self, end: str) -> str:
        stop = self.pattern.find(end, self.place)
        if stop < 0:
            self.refuse(f"no {end} follows")
        text = self.pattern[self.place : stop]
        self.place = stop + len(end)
        return text

    def choice(self, *, fold: bool) -> Node:
        branches = [self.sequence(fold=fold)]
        while self.take("|"):
            branches.append(self.sequence(fold=fold))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def sequence(self, *, fold: bool) -> Node:
        parts = list[Node]()
        while self.place < len(self.pattern) and not self.peek("|") and not self.peek(")"):
            part = self.repeated(self.atom(fold=fold))
            if fold:
                self._check_folds(parts, part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _check_folds(self, before: list[Node], part: Node) -> None:
        """Two letters that some one letter equals, such as ss."""
        if not isinstance(part, One) or part.letter is None:
            return
        if len(part.letter.casefold()) > 1:
            self.refuse(f"{part.letter!r} where case does not count is several letters")
        if before and isinstance(before[-1], One) and before[-1].letter is not None:
            pair = before[-1].letter + part.letter
            if pair.casefold() in cp.fold_pairs():
                self.refuse(f"{pair!r} where case does not count equals a single letter")

    def repeated(self, node: Node) -> Node:
        while self.place < len(self.pattern):
            counts = self._counts()
            if counts is None:
                return node
            least, most, braces = counts
            kind = "greedy"
            if self.take("?"):
                if braces and least == most:
                    self.refuse("{n}? is read in several ways")
                kind = "lazy"
            elif not braces and self.take("+"):
                kind = "possessive"
            if isinstance(node, Ahead):
                self.refuse("a repeated look ahead")
            node = Repeat(node, least, most, kind)
        return node

    def _counts(self) -> tuple[int, int | None, bool] | None:
        for sign, least, most in (("*", 0, None), ("+", 1, None), ("?", 0, 1)):
            if self.take(sign):
                return least, most, False
        if not self.peek("{"):
            return None
        start = self.place
        self.place += 1
        low, comma, high = self.until("}").partition(",")
        if not (low + high).isdigit() or (low and not low.isdigit()):
            self.place = start
            self.refuse("{ that is no count of repetitions")
        least = int(low or 0)
        most = (int(high) if high else None) if comma else least
        if max(least, most or 0) > MOST or (most is not None and most < least):
            self.refuse(f"repetitions {least} to {most}")
        return least, most, True

    def atom(self, *, fold: bool) -> Node:
        start = self.next()
        if start == "(":
            return self.group(fold=fold)
        if start == "[":
            return One(self.whole_bracket(fold=fold))
        if start == ".":
            return One(cp.complement(cp.of_characters("\n")))
        if start == "$":
            return Ahead(cp.of_characters("\n"), end=True)
        if start == "\\":
            if self.take("z"):
                return Ahead(cp.EMPTY, end=True)
            found = self.escape()
            return self.letter(found, fold=fold) if isinstance(found, str) else One(found)
        if start in "*+?^":
            self.refuse(f"{start} is not supported here")
        return self.letter(start, fold=fold)

    def letter(self, letter: str, *, fold: bool) -> One:
        return One(cp.folds(letter), letter) if fold else One(cp.of_characters(letter))

    def group(self, *, fold: bool) -> Node:
        ahead = None
        if self.take("?"):
            if self.take("=") or self.peek("!"):
                ahead = not self.take("!")
            elif self.take("i:"):
                fold = True
            elif self.take("-i:"):
                fold = False
            elif self.take("i)"):
                return self.choice(fold=True)
            elif not self.take(":"):
                self.refuse(f"(?{self.pattern[self.place : self.place + 2]} is not supported")
        node = self.choice(fold=fold)
        if not self.take(")"):
            self.refuse("no ) follows")
        if ahead is None:
            return node
        if isinstance(node, Choice) and all(isinstance(each, One) for each in node.branches):
            allowed = cp.EMPTY
            for each in node.branches:
                assert isinstance(each, One)
                allowed = cp.union(allowed, each.allowed)
            node = One(allowed)
        if not isinstance(node, One):
            self.refuse("looks ahead by more than one character")
        assert isinstance(node, One)
        return Ahead(node.allowed if ahead else cp.complement(node.allowed), end=not ahead)

    def escape(self) -> cp.Set | str:
        """What follows a backslash: a set, or one letter."""
        kind = self.next()
        if kind in "pP":
            if not self.take("{"):
                self.refuse(f"\\{kind} without a name in braces")
            name = self.until("}")
            inverted = (kind == "P") != name.startswith("^")
            return self.property(name.lstrip("^"), inverted=inverted)
        if kind in _SHORT:
            found = cp.spaces() if kind in "sS" else cp.named(f"\\{kind.lower()}")
            return cp.complement(found) if kind.isupper() else found
        if kind in _CONTROL:
            return _CONTROL[kind]
        if kind == "x" and self.take("{"):
            return chr(int(self.until("}"), 16))
        if kind in "xu":
            size = 2 if kind == "x" else 4
            digits = self.pattern[self.place : self.place + size]
            try:
                code = int(digits, 16)
            except ValueError:
                self.refuse(f"\\{kind} without {size} hexadecimal digits")
            self.place += size
            if kind == "x" and code > 0x7F:
                self.refuse("a byte that is no character")
            return chr(code)
        if kind.isalnum():
            self.refuse(f"\\{kind} is not supported")
        return kind

    def property(self, name: str, *, inverted: bool) -> cp.Set:
        if name in cp.OWN_SETS:
            found = cp.split_off(name.removeprefix("="))
            return cp.complement(found) if inverted else found
        plain = {"Letter": "L", "Number": "N", "Punctuation": "P", "Mark": "M", "Symbol": "S"}
        short = plain.get(name, name)
        if short in cp.CATEGORIES or (len(short) == 1 and short in "LMNPSZ"):
            found = cp.category(short)
        else:
            try:
                found = cp.named(f"\\p{{{name}}}")
            except Exception:  # the library raises Exception itself
                raise Unfit(f"pattern {self.pattern!r}: no property is named {name!r}") from None
        return cp.complement(found) if inverted else found

    def whole_bracket(self, *, fold: bool) -> cp.Set:
        """A set in brackets, the first of which is read already."""
        start = self.place - 1
        found = self.bracket(fold=fold)
        text = self.pattern[start : self.place]
        if _OWN_MEANING.search(text):  # in brackets the library reads some of them otherwise
            found = cp.named(f"(?i:{text})" if fold else text)
        return found

    def bracket(self, *, fold: bool) -> cp.Set:
        """A set in brackets; the first one is read already."""
        inverted = self.take("^")
        whole: cp.Set | None = None
        found, first = cp.EMPTY, True
        while first or not self.take("]"):
            if self.take("&&"):
                whole = found if whole is None else cp.intersection(whole, found)
                found, first = cp.EMPTY, False
                continue
            found = cp.union(found, self._item(fold=fold, first=first))
            first = False
        whole = found if whole is None else cp.intersection(whole, found)
        return cp.complement(whole) if inverted else whole

    def _item(self, *, fold: bool, first: bool) -> cp.Set:
        if self.take("[:"):
            return cp.named(f"[[:{self.until(':]')}:]]")
        low = self._member()
        if not isinstance(low, str):
            return self._folded(low, fold=fold)
        if self.peek("-") and not self.peek("-]"):
            self.place += 1
            high = self._member()
            if not isinstance(high, str) or high < low:
                self.refuse("a range without an end above its beginning")
            return self._folded(cp.of_ranges([(ord(low), ord(str(high)))]), fold=fold)
        return self._folded(cp.of_characters(low), fold=fold)

    def _member(self) -> cp.Set | str:
        letter = self.next()
        if letter == "[":
            return self.bracket(fold=False)
        return self.escape() if letter == "\\" else letter

    def _folded(self, some: cp.Set, *, fold: bool) -> cp.Set:
        if not fold:
            return some
        points = cp.first_points(some, 64)
        if points is None:
            self.refuse("a large set where case does not count")
        found = cp.EMPTY
        for point in points or ():
            if len(chr(point).casefold()) > 1:
                self.refuse(f"{chr(point)!r} where case does not count is several letters")
            found = cp.union(found, cp.folds(chr(point)))
        return found
