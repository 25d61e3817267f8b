"""Token ids to text as they come: no half characters, nothing of a stop string."""

from collections.abc import Callable, Sequence

HELD_AT_MOST = 16  # tokens; a character has at most 4 bytes: after that it is a model gone astray


class Detokenizer:
    """Turns ids into pieces of text whose concatenation is the text of all of them.

    The text of a token depends on its neighbours (a leading space, a character of several tokens),
    so a few ids before it are decoded along, and what they give alone is taken away.
    """

    def __init__(self, decode: Callable[[list[int]], str], context: Sequence[int] = ()) -> None:
        """`context`: the last ids before the first one, e.g. of the prompt."""
        self._decode = decode
        self._ids = list(context)
        self._old = "" if not self._ids else decode(self._ids)
        if self._old.endswith("\ufffd"):
            self._ids, self._old = [], ""
        self._shown = len(self._ids)  # ids whose text was given out

    def add(self, token: int) -> str:
        """The text that is certain now; empty while a character is incomplete."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) - self._shown < HELD_AT_MOST:
            return ""
        return self._give(text)

    def end(self) -> str:
        """The rest, with U+FFFD for a character that never became complete."""
        return self._give(self._decode(self._ids)) if self._shown < len(self._ids) else ""

    def _give(self, text: str) -> str:
        piece = text[len(self._old) :]
        new = self._ids[self._shown :]
        if self._decode(new):  # special tokens alone are no context: a space after them is lost
            self._ids = new
        elif not piece and len(self._ids) > HELD_AT_MOST:  # invisible tokens without end
            self._ids = self._ids[: self._shown]
        self._shown, self._old = len(self._ids), self._decode(self._ids)
        return piece


class StopStrings:
    """Cuts a stream of text before the first stop string; holds back what may become one.

    Special tokens are no part of the text that is given out, and stop strings may contain them.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held, self._shown = "", list[bool]()
        self.found: str | None = None

    def add(self, piece: str, *, shown: bool = True) -> str:
        """The text that is certain not to belong to a stop string; sets `found`.

        shown   whether the piece is to be given out; else a stop string is looked for in it
        """
        self._held += piece
        self._shown += [shown] * len(piece)
        places = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if places:
            cut, self.found = min(places)
            piece = self._take(cut)
            self._held, self._shown = "", []
            return piece
        keep = max((_partial(self._held, stop) for stop in self._stops), default=0)
        return self._take(len(self._held) - keep)

    def end(self) -> str:
        """What was held back and became no stop string."""
        return self._take(len(self._held))

    def _take(self, count: int) -> str:
        """What is given out of the first `count` letters held, which are held no longer."""
        pairs = zip(self._held[:count], self._shown[:count], strict=True)
        text = "".join(letter for letter, shown in pairs if shown)
        self._held, self._shown = self._held[count:], self._shown[count:]
        return text


def _partial(text: str, stop: str) -> int:
    """Characters at the end of `text` that are a beginning of `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
