"""Chat: answers to a conversation, of which a session reads only what is new."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lcc.runtime.text.chat import ChatTemplate, Message, now
from lcc.runtime.text.conversation import Conversation
from lcc.runtime.text.encoding import Encoder
from lcc.runtime.text.reading import Reader
from lcc.runtime.text.seam import behind, common
from lcc.runtime.text.writing import Callback, Options, Writer

LONGEST = 1 << 16  # characters of a message that is tokenized in one go


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    told    its messages
    prompt  what asks for the answer
    begun   the time that a template shows, in seconds since 1970
    """

    told: str
    prompt: str
    begun: float


class Talk:
    """The conversation that a session is in.

    conversation    None = none, or the session was moved by something else
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        encoder: Encoder,
        template: Callable[[], ChatTemplate],
    ) -> None:
        """`template`: loads the model's own."""
        self._reader, self._writer, self._template = reader, writer, template
        self._tokenizer, self._ends = encoder.tokenizer, encoder.ends
        self.conversation: Conversation | None = None

    def render(
        self,
        messages: Sequence[Message],
        template_options: Mapping[str, Any],
        options: Options,
        *,
        known: bool = True,
    ) -> Rendered:
        """The messages as text; every mistake in them or in the options is reported now.

        Args:
            messages: The conversation.
            template_options: Handed to the template.
            options: Of the answer, see `Writer.ids`.
            known: The messages may continue the present conversation, which keeps its time.

        Raises:
            ConfigError: there is no template, it refuses the messages, or an option is wrong.
        """
        template = self._template()
        talk, present = self.conversation if known else None, now()
        begun = present if talk is None else talk.begun
        told, prompt = template.render_turn(messages, template_options, begun)
        if talk is not None and not talk.is_in(told + prompt):
            begun = present
            told, prompt = template.render_turn(messages, template_options, begun)
        self._writer.ids(told + prompt, options, prefix=False)
        return Rendered(told, prompt, begun)

    def answer(
        self,
        rendered: Rendered,
        stops: Sequence[str],
        callback: Callback | None,
        options: Options,
        *,
        known: bool = True,
    ) -> Iterator[str]:
        """Pieces of the answer; `known`: what was read of this conversation is not read again.

        A message whose reading was interrupted is taken back. What was answered is noted, as far as
        it was given out, unless another call has moved the session meanwhile.
        """
        told, prompt = rendered.told, rendered.prompt
        chosen: list[int] = []
        ids, drop = self._ids(told, prompt, options, known=known)
        ids, answer, before = _noted(ids, chosen), "", self._reader.tokens - drop
        epoch = self._reader.epoch + 1  # of this call
        talk = None

        def note(eos: str | None = None) -> None:
            nonlocal talk
            if talk is None:
                turn = self._before(told, prompt, len(chosen))
                talk = Conversation.of(told, prompt, turn, begun=rendered.begun)
            self.conversation = talk.said(answer, eos, self._reader.tokens)

        try:
            for piece in self._writer.pieces(ids, stops, callback, options):
                answer += piece
                note()
                yield piece
        finally:
            if self._reader.epoch > epoch:
                pass  # another call has moved the session since
            elif not chosen:  # the prompt was not read to its end
                self._take_back(self._reader.tokens - before, drop)
            else:
                ended = chosen[-1] in self._ends
                note(self._tokenizer.decode([chosen[-1]], special=True) if ended else None)

    def _ids(
        self, told: str, prompt: str, options: Options, *, known: bool
    ) -> tuple[Iterator[int], int]:
        """The ids of the answer, before which what is new is read, and the tokens it drops."""
        text, drop = self._to_read(told, prompt) if known else (told + prompt, 0)
        alone = text == told + prompt  # a conversation of its own
        return self._writer.ids(text, options, prefix=False, drop=drop, alone=alone), drop

    def _to_read(self, told: str, prompt: str) -> tuple[str | list[int] | None, int]:
        """What is to be read of a conversation, and the newest tokens to take back before.

        Where the tokens since the last prompt can be taken back, the conversation gets the ids that
        it has when all of it is tokenized at once, and those that the session holds stay. Else what
        is new is read behind what the session holds.
        """
        whole, known = told + prompt, self.conversation
        held = self._reader.tokens
        if known is None or known.turn is None or held != known.end or not known.is_in(whole):
            return self._unread(told, prompt), 0
        if "\ufffd" in known.answer:  # bytes that are no text: what is told of them is not them
            return self._unread(told, prompt), 0
        count, new = held - known.turn, len(whole) - known.size
        if not 0 <= count <= self._reader.rewindable or not 0 < new <= LONGEST:
            return self._unread(told, prompt), 0
        ids = behind(self._tokenizer, whole, known.size)
        if not ids:
            return self._unread(told, prompt), 0
        newest = self._reader.newest
        same = min(common(ids, newest[len(newest) - count :]), len(ids) - 1)
        return ids[same:], count - same

    def _unread(self, told: str, prompt: str) -> str | None:
        """What is to be read of a conversation; None = all of it was, and nothing behind it."""
        whole, known = told + prompt, self.conversation
        if known is None:
            return whole
        if known.is_retold(whole):
            known = self._take_back_turn(known)
        text = known.unread(whole)
        if text == "":
            return None if self._reader.tokens == known.turn else whole
        return whole if text is None else text

    def _take_back_turn(self, known: Conversation) -> Conversation:
        """Undo the last answer and the prompt for it, if they came last and no cycle came after."""
        held = self._reader.tokens
        count = None if known.turn is None else held - known.turn
        if count is not None and held == known.end and count <= self._reader.rewindable:
            self._reader.rewind(count)
            known = self.conversation = known.before_turn()
        return known

    def _before(self, told: str, prompt: str, answer: int) -> int | None:
        """Tokens held before the prompt for an answer of so many tokens; None = not known."""
        held = self._reader.newest
        held = held[: max(0, len(held) - answer)]
        ids = behind(self._tokenizer, told + prompt, len(told))
        if ids is not None and held[len(held) - len(ids) :] == ids:
            return self._reader.tokens - answer - len(ids)
        for count in range(min(len(held), len(prompt.encode("utf-8", "replace"))) + 1):
            newest = held[len(held) - count :]
            if self._tokenizer.decode(newest, special=True) == prompt:
                return self._reader.tokens - answer - count
        return None

    def _take_back(self, count: int, dropped: int) -> None:
        """Undo a message read in part, so that it is not read twice; a cycle cannot be undone.

        Tokens dropped before it are gone: the conversation then ends before them.
        """
        if count > self._reader.rewindable or self._reader.executor.broken:
            self.conversation = None
            return
        if count > 0:
            self._reader.rewind(count)
        if dropped and self.conversation is not None:
            self.conversation = replace(self.conversation, end=self._reader.tokens)


def _noted(ids: Iterator[int], chosen: list[int]) -> Iterator[int]:
    """The same ids, each added to `chosen` as it comes."""
    for token in ids:
        chosen.append(token)
        yield token
