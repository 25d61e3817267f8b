"""Text to token ids, a piece at a time, so that a book takes no more memory than a page.

A tokenizer asked for the ids of several MB builds tables many times the text's size. Here the text
is cut into windows that overlap, and the ids of two neighbours are joined inside the overlap.

Why the ids are those of one go: tokenizers split text into pre-tokens (words) from left to right,
and each pre-token into tokens by itself. Once two scans of the same text have one border of
pre-tokens in common, they agree on everything that follows it. So windows are joined only at such a
border, in the middle of a stretch of `AGREE` tokens on either side that both windows read alike.
Tokenizers without pre-tokens (SentencePiece-like BPE over the whole text) have no such borders:
there the agreement of the stretch alone is asked for, longer than any token could reach. Where no
such place is found, the overlap is doubled, in the end up to the whole text. (The argument fails
for a pre-tokenizer whose expression looks behind; the stretch of agreement is what is left then.)
"""

import bisect
import functools
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lcc.errors import ArtifactError, ConfigError
from lcc.runtime.text.literal import BEGIN, END, MARKED, Literals

WINDOW = 1 << 16  # characters
OVERLAP = 1 << 10
AGREE = 16  # tokens


class Tokenizer:
    """The model's own tokenizer, from the files of the artifact.

    Of a model that was compiled without one it knows nothing: ids go in and out.
    """

    def __init__(self, folder: str | Path, files: Collection[str] | None = None) -> None:
        """Read tokenizer.json, and tokenizer_config.json and generation_config.json if there.

        files       names of the artifact's files: another one is not opened; None = any
        """
        self._folder, self._files = Path(folder), files
        path = self.path("tokenizer.json")
        self._backend = None if path is None else _backend(path)
        self.config = self._json("tokenizer_config.json")
        template = self.path("chat_template.jinja")
        self._template = None if template is None else template.read_text(encoding="utf-8")
        self.generation_config = self._json("generation_config.json")
        self.prefix, self._splits = list[int](), False
        self.special_ids = frozenset[int]()  # of control tokens, which are never shown
        if self.knows_text:
            added = self.backend.get_added_tokens_decoder()
            self.special_ids = frozenset(i for i, token in added.items() if token.special)
            self.prefix = self._prefix()
            words = self.backend.encode("a b\nc, 1").word_ids
            self._splits = len(set(words)) > 1  # has pre-tokens

    @property
    def knows_text(self) -> bool:
        """Whether there is a tokenizer at all."""
        return self._backend is not None

    @property
    def backend(self) -> Any:
        """The library's tokenizer.

        Raises:
            ConfigError: there is none.
        """
        self.check_text()
        return self._backend

    @functools.cached_property
    def literals(self) -> Literals:
        """How control tokens in the text of others are read as plain text."""
        templates = self.chat_template or ""
        source = templates if isinstance(templates, str) else "\0".join(templates.values())
        return Literals(self.backend, source)

    def check_text(self) -> None:
        """Refuse text, asked for or given, where there is no tokenizer.

        Raises:
            ConfigError: says what to do in place of it.
        """
        if not self.knows_text:
            raise ConfigError(
                f"{self._folder}: the model has no tokenizer; give token ids in place of text, and "
                "take them from generate_ids()"
            )

    def path(self, name: str) -> Path | None:
        """Where a file of the artifact is; None = it has none of that name."""
        path = self._folder / name
        return path if path.is_file() and (self._files is None or name in self._files) else None

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        if path is None:
            return {}
        try:
            page = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ArtifactError(f"{path}: {error}") from None
        if not isinstance(page, dict):
            raise ArtifactError(f"{path}: wanted a JSON object")
        return page

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """Of chat_template.jinja, else of tokenizer_config.json: one, several by name, or None."""
        source = self._template or self.config.get("chat_template")
        if isinstance(source, list):
            pages = [each for each in source if isinstance(each, dict)]
            return {str(each.get("name")): str(each.get("template")) for each in pages}
        return source if isinstance(source, str) else None

    @property
    def special_tokens(self) -> dict[str, str]:
        """Every special token of tokenizer_config.json as text: bos_token, eos_token, ..."""
        names = [name for name in self.config if name.endswith("_token")]
        return {name: text for name in names if (text := self.special(name)) is not None}

    def _prefix(self) -> list[int]:
        """Ids that the tokenizer puts before a text, e.g. the beginning-of-sequence token."""
        plain = self.backend.encode("a", add_special_tokens=False).ids
        full = self.backend.encode("a", add_special_tokens=True).ids
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return list(full[:start])
        return []

    def special(self, name: str) -> str | None:
        """A special token of tokenizer_config.json as text: bos_token, eos_token, ..."""
        value = self.config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        return value if isinstance(value, str) else None

    def encode(self, text: str, *, prefix: bool = False) -> list[int]:
        """All ids of a text; `prefix`: with the special tokens that begin one."""
        ids = list(self.prefix) if prefix else []
        for part, _ in self.parts(text):
            ids += part
        return ids

    def decode(self, ids: list[int], *, special: bool = False) -> str:
        """The text of ids; `special`: special tokens are spelled out."""
        return str(self.backend.decode(ids, skip_special_tokens=not special))

    def pieces(self, text: str) -> tuple[list[int], list[int]]:
        """All ids of a short text, and the character that each begins with."""
        window = self._window(text, 0, len(text))
        return window.ids, window.offsets

    def parts(self, text: str, *, skip: int = 0) -> Iterator[tuple[list[int], int]]:
        """Ids of consecutive parts of a text, each with the number of characters read so far.

        The first `skip` tokens are left out; they must lie in the first window.
        """
        if not isinstance(text, str):
            raise ConfigError(f"text is {type(text).__name__}, wanted str or a list of token ids")
        if len(text) <= WINDOW:
            yield self._ids(text)[skip:], len(text)
            return
        window = self._window(text, 0, WINDOW)
        done = first = skip  # tokens given out; token of the window where the next part begins
        while window.end < len(text):
            following, seam = self._join(text, window, first)
            if seam is None:  # no border anywhere: all of it in one go
                window, first = self._window(text, 0, len(text)), done
                break
            done += seam[0] - first
            yield window.ids[first : seam[0]], window.end
            window, first = following, seam[1]
        yield window.ids[first:], len(text)

    def _join(
        self, text: str, window: "_Window", first: int
    ) -> tuple["_Window", tuple[int, int] | None]:
        """The window after this one, and the token of each where the one takes over."""
        overlap = OVERLAP
        while True:
            start = max(window.end - overlap, 0)
            following = self._window(text, start, start + WINDOW + overlap)
            seam = _seam(window, following, first)
            if seam is not None or start == 0:
                return following, seam
            overlap *= 2

    def _ids(self, text: str) -> list[int]:
        if BEGIN in text or END in text:
            return self._marked(text, 0, len(text)).ids
        return list(self.backend.encode(_valid(text), add_special_tokens=False).ids)

    def _marked(self, text: str, start: int, end: int) -> "_Window":
        """A stretch of text with marked places, piece by piece."""
        whole, place = _Window([], [], [], end), start
        for match in [*MARKED.finditer(text, start, end), None]:
            if stretch := text[place : match.start() if match else end]:
                part = self._window(stretch, 0, len(stretch))
                whole.ids += part.ids
                whole.offsets += [place + each for each in part.offsets]
                whole.borders += part.borders
            if match is not None and match[1]:
                ids = self.literals.encode(match[1])
                whole.ids += ids
                whole.offsets += [match.start()] * len(ids)
                whole.borders += [i == 0 for i in range(len(ids))]
            place = match.end() if match else end
        return whole

    def _window(self, text: str, start: int, end: int) -> "_Window":
        end = min(end, len(text))
        if BEGIN in (stretch := text[start:end]) or END in stretch:
            return self._marked(text, start, end)
        encoding = self.backend.encode(_valid(text[start:end]), add_special_tokens=False)
        words = encoding.word_ids if self._splits else range(len(encoding))
        offsets = [start + a for a, _ in encoding.offsets]
        borders = [i == 0 or words[i - 1] != words[i] for i in range(len(words))]
        return _Window(list(encoding.ids), offsets, borders, end)


def _backend(path: Path) -> Any:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise ArtifactError(f"{path}: {error}") from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def _valid(text: str) -> str:
    """Lone surrogates, which no tokenizer takes, become question marks; lengths stay."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class _Window:
    """Ids of a stretch of text; of each its first character, and if a pre-token begins there."""

    def __init__(self, ids: list[int], offsets: list[int], borders: list[bool], end: int) -> None:
        self.ids, self.offsets, self.borders, self.end = ids, offsets, borders, end


def _seam(left: _Window, right: _Window, first: int) -> tuple[int, int] | None:
    """Where to go over from one window to the next: a token index in each, or None.

    The nearest to the middle of the overlap: the right window's first tokens and the left one's
    last may be cut words.
    """
    if not right.offsets:
        return None
    middle = (right.offsets[0] + left.end) // 2
    places = {offset: j for j, offset in enumerate(right.offsets)}
    start = max(first, AGREE, bisect.bisect_left(left.offsets, right.offsets[0]))
    candidates = range(start, len(left.ids) - AGREE)
    for i in sorted(candidates, key=lambda i: abs(left.offsets[i] - middle)):
        j = places.get(left.offsets[i], 0)
        if j < AGREE or not (left.borders[i] and right.borders[j]):
            continue
        here, there = slice(i - AGREE, i + AGREE), slice(j - AGREE, j + AGREE)
        if left.ids[here] == right.ids[there] and left.offsets[here] == right.offsets[there]:
            return i, j
    return None
