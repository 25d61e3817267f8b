"""Control tokens in the text of others, read as plain text.

A file or a user may write `<|im_end|>`. Tokenized as it stands, it is the control token, and what
follows it is no longer what the user said. So such places are marked before a text is rendered and
tokenized, and marked places become the tokens of their letters.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

BEGIN, END = "\uf8f0", "\uf8f1"  # of a marked place: letters of nobody's alphabet
MARKED = re.compile(f"{BEGIN}([^{BEGIN}{END}]*){END}|[{BEGIN}{END}]")


class Added(Protocol):
    """A token that was added to a vocabulary; `special`: it is never shown."""

    @property
    def content(self) -> str:
        """Its text."""

    @property
    def special(self) -> bool:
        """Whether it is never shown."""


class Literals:
    """What a tokenizer takes for control tokens."""

    def __init__(self, added: Iterable[Added], template: str) -> None:
        """`template`: source of the chat templates; words of theirs are control tokens, too."""
        names = [
            token.content
            for token in added
            if token.special or (token.content in template and token.content.strip())
        ]
        longest = sorted(filter(None, names), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        self._most = max(map(len, longest), default=0)

    def mark(self, value: Any) -> Any:
        """A text, or all texts in lists and dicts, with their control tokens marked."""
        if isinstance(value, str):
            clean = value.replace(BEGIN, "").replace(END, "")
            return self._names.sub(lambda match: f"{BEGIN}{match[0]}{END}", clean)
        if isinstance(value, Mapping):
            return {key: self.mark(each) for key, each in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes):
            return [self.mark(each) for each in value]
        return value

    def behind(self, before: str, text: str) -> str:
        """A marked text, kept apart from the one before it where they would make a control token.

        before  the end of what was read
        """
        tail = before[-self._most :] if self._most else ""
        joined = self._names.finditer(tail + text[: self._most])
        apart = any(match.start() < len(tail) < match.end() for match in joined)
        return f"{END}{text}" if apart else text


class Speller:
    """How a tokenizer of the library reads control tokens as letters."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._without: Any = None  # the same tokenizer without control tokens

    def encode(self, text: str) -> list[int]:
        """The ids of a marked place without its marks: never one of a control token."""
        known = set(self._backend.get_added_tokens_decoder())
        ids = self._behind_a_line(text)
        if known & set(ids):  # a vocabulary whose words lead to it: letter by letter, then
            ids = [token for letter in text for token in self._behind_a_line(letter)]
        return ids

    def _behind_a_line(self, text: str) -> list[int]:
        """As inside a text: no space is put in front."""
        if self._without is None:
            self._without = _without_added(self._backend)
        encode = self._without.encode
        line = encode("\n", add_special_tokens=False).ids
        ids: list[int] = encode(f"\n{text}", add_special_tokens=False).ids
        if ids[: len(line)] == line:
            return ids[len(line) :]
        return list(encode(text, add_special_tokens=False).ids)


def _without_added(backend: Any) -> Any:
    """The same vocabulary, not a copy of it, and the same steps before it."""
    from tokenizers import Tokenizer

    bare = Tokenizer(backend.model)
    bare.normalizer, bare.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    return bare
