"""Text to ids and back by the tokenizers library, a piece at a time.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lcc.errors import ArtifactError
from lcc.runtime.text.literal import BEGIN, END, MARKED, Added, Speller
from lcc.runtime.text.trial import tried

WINDOW = 1 << 16  # characters
OVERLAP = 1 << 10
AGREE = 16  # tokens


class LibraryTokenizer:
    """A tokenizer.json, as the library reads it.

    backend     the library's tokenizer, which cuts and pads nothing
    prefix      ids that it puts before a text, e.g. the beginning-of-sequence token
    """

    def __init__(self, backend: Any) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend, self.prefix = backend, _prefix(backend)
        self._splits = len(set(backend.encode("a b\nc, 1").word_ids)) > 1  # has pre-tokens
        self._speller = Speller(backend)

    @classmethod
    def open(cls, path: Path) -> "LibraryTokenizer":
        """Raises ArtifactError where the library cannot read the file, or must not."""
        from tokenizers import Tokenizer

        data = path.read_bytes()
        tried(data, str(path), ArtifactError)
        try:
            backend = Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises Exception itself
            raise ArtifactError(f"{path}: {error}") from None
        return cls(backend)

    def added(self) -> Mapping[int, Added]:
        """Tokens that were added to the vocabulary, by id."""
        found: Mapping[int, Added] = self.backend.get_added_tokens_decoder()
        return found

    def decode(self, ids: list[int], *, special: bool) -> str:
        """The text of ids; `special`: special tokens are spelled out."""
        return str(self.backend.decode(ids, skip_special_tokens=not special))

    def parts(self, text: str) -> Iterator[tuple[list[int], int]]:
        """Ids of consecutive parts of a text, each with the number of characters read so far."""
        if len(text) <= WINDOW:
            yield self._ids(text), len(text)
            return
        window = self._window(text, 0, WINDOW)
        done = first = 0  # tokens given out; token of the window where the next part begins
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
                ids = self._speller.encode(_valid(match[1]))
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


def _prefix(backend: Any) -> list[int]:
    plain = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return list(full[:start])
    return []


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
