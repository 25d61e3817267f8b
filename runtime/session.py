"""What a user sees: feed text of any length, generate, chat, rewind, save, load."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Unpack

from lcc.artifact.manifest import fingerprint
from lcc.errors import ConfigError
from lcc.runtime import state
from lcc.runtime.reader import Ids
from lcc.runtime.stats import Stats, peak_rss_bytes
from lcc.runtime.text.chat import ChatTemplate, Conversation, Message, load_template, now
from lcc.runtime.writer import Options, Writer, stop_strings


class Session(Writer):
    """One text, read and continued, in a cache of fixed size. For one thread at a time.

        session = lcc.runtime.load("smollm2.lcc")
        session.feed(open("book.txt").read())
        for piece in session.generate("Who is the narrator?", max_new_tokens=64):
            print(piece, end="")
        session.save("book.lccstate")

    Whatever stops a call, be it Ctrl-C, a callback or a loop that was left, the session holds every
    token up to that point and can go on from there. `reset` and `rewind` go back.
    """

    _conversation: Conversation | None = None
    _template: ChatTemplate | None = None

    def __repr__(self) -> str:
        return (
            f"<Session {self.manifest.model.name}: {self.tokens:,} tokens read, "
            f"{self.used:,} of {self.capacity:,} entries used>"
        )

    def reset(self) -> None:
        """Forget everything that was read; buffers, catalyst and hooks stay."""
        super().reset()
        self._conversation = None

    def rewind(self, count: int) -> None:
        """Take back the newest `count` tokens, fed or generated.

        Raises:
            CacheError: some of them were read before the last cycle; says how far one can go.
        """
        super().rewind(count)
        self._conversation = None

    def generate(
        self,
        prompt: str | Ids | None = None,
        *,
        stop: str | Sequence[str] | None = None,
        callback: Callable[[str], object] | None = None,
        chat: bool = False,
        prefix: bool = True,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """Pieces of text as they become certain; otherwise as `generate_ids`.

        stop        strings that end the text and are not given out
        callback    called with each piece; returning False stops
        chat        the prompt is a user's message: put it into the model's chat template, after
                    whatever the session holds
        prefix      as in `feed`; a rendered chat template has its own

        Tokens of a stop string, or of text held back when the loop was left, are in the session.
        """
        stops = stop_strings(stop)
        if not chat:
            return self._pieces(self._ids(prompt, options, prefix=prefix), stops, callback, options)
        if not isinstance(prompt, str) or not prompt:
            raise ConfigError("chat needs a prompt: the text of the user's message")
        rendered = self._render([{"role": "user", "content": prompt}], {}, options, known=False)
        return self._answer(*rendered, stops, callback, options, known=False)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        stop: str | Sequence[str] | None = None,
        callback: Callable[[str], object] | None = None,
        template_options: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """The answer to a conversation, in the model's own template; otherwise as `generate`.

        messages            [{"role": "user", "content": "..."}, ...]; a list that continues the
                            last one (its messages, the answer, a new message) is read from there
                            on; the last one itself asks for another answer. Where no cycle has run
                            since and nothing else was read, an answer that is not told, or told
                            otherwise, is taken back: templates leave out what a model thought
                            before it answered. Any other list is read as a whole, after what the
                            session holds
        template_options    handed to the template, e.g. {"tools": [...]}

        Nothing is read or taken back before the first piece is asked for.

        Raises:
            ConfigError: the model has no template, or the template refuses the messages; an option
                that is not its own, or a stop that is no text.
        """
        stops = stop_strings(stop)
        rendered = self._render(messages, template_options or {}, options)
        return self._answer(*rendered, stops, callback, options)

    def _render(
        self,
        messages: Sequence[Message],
        more: Mapping[str, Any],
        options: Options,
        *,
        known: bool = True,
    ) -> tuple[str, str, float]:
        """The conversation, the prompt for an answer, and the time that they tell.

        What is wrong with them is said now. That of a `known` conversation is when it began.
        """
        if self._template is None:
            self._template = load_template(self.tokenizer)
        talk, present = self._conversation if known else None, now()
        begun = present if talk is None else talk.begun
        told, prompt = self._template.render_turn(messages, more, begun)
        if talk is not None and not talk.is_in(told + prompt):
            begun = present
            told, prompt = self._template.render_turn(messages, more, begun)
        self._ids(told + prompt, options, prefix=False)
        return told, prompt, begun

    def _answer(
        self,
        told: str,
        prompt: str,
        begun: float,
        stops: Sequence[str],
        callback: Callable[[str], object] | None,
        options: Options,
        *,
        known: bool = True,
    ) -> Iterator[str]:
        """Pieces of the answer; `known`: what is held of this conversation is not read again."""
        text = self._unread(told, prompt) if known else told + prompt
        chosen: list[int] = []
        ids = _noted(self._ids(text, options, prefix=False), chosen)
        answer, before, epoch = "", self.tokens, self._epoch + 1  # that of this call
        talk = None

        def note(eos: str | None = None) -> None:
            nonlocal talk
            if talk is None:
                turn = self._before(prompt, len(chosen))
                talk = Conversation.of(told, prompt, turn, begun=begun)
            self._conversation = talk.said(answer, eos, self.tokens)

        try:
            for piece in self._pieces(ids, stops, callback, options):
                answer += piece
                note()
                yield piece
        finally:
            if self._epoch > epoch:
                pass  # another call has moved the session since
            elif not chosen:  # the prompt was not read to its end
                self._take_back(self.tokens - before)
            else:
                ended = chosen[-1] in self.tokenizer.eos_ids
                note(self.tokenizer.decode([chosen[-1]], special=True) if ended else None)

    def _unread(self, told: str, prompt: str) -> str | None:
        """What is to be read of a conversation; None = all of it was, and nothing behind it."""
        whole, known = told + prompt, self._conversation
        if known is None:
            return whole
        if known.is_retold(whole):
            known = self._take_back_turn(known)
        text = known.unread(whole)
        if text == "":
            return None if self.tokens == known.turn else whole
        return whole if text is None else text

    def _take_back_turn(self, known: Conversation) -> Conversation:
        """Undo the last answer and the prompt for it, if that can be done and they came last."""
        count = None if known.turn is None else self.tokens - known.turn
        if count is not None and self.tokens == known.end and count <= self.rewindable:
            self.rewind(count)
            known = self._conversation = known.before_turn()
        return known

    def _before(self, prompt: str, answer: int) -> int | None:
        """Tokens held before the prompt for an answer of so many tokens; None = not known."""
        held = [*self._executor.since_cycle, *self._pending]
        held = held[: max(0, len(held) - answer)]
        for count in range(min(len(held), len(prompt.encode())) + 1):
            newest = held[len(held) - count :]
            if self.tokenizer.decode(newest, special=True) == prompt:
                return self.tokens - answer - count
        return None

    def _take_back(self, count: int) -> None:
        """Undo a message read in part, so that it is not read twice; a cycle cannot be undone."""
        known = self._conversation
        if count > self.rewindable or self._executor.broken:
            self._conversation = None
        elif count > 0:
            self.rewind(count)
            self._conversation = known

    def stats(self) -> Stats:
        """Times, rates, cycles, entries and bytes, until now."""
        cache = self._executor.cache
        return Stats(
            **asdict(self._clock),
            tokens=self.tokens,
            entries=self.used,
            capacity=self.capacity,
            cache_bytes=cache.bytes,
            held_bytes=cache.bytes_of(self.used),
            peak_rss_bytes=peak_rss_bytes(),
        )

    def save(self, path: str | Path, *, dtype: Literal["float32", "float16"] | None = None) -> None:
        """Write what the session holds to a file: `used` entries, not the whole cache.

        The catalyst is part of it: what is read after `load` is evicted as it would be here.

        dtype       of keys and values; None = as the cache keeps them, which goes on bit for bit;
                    float16 is half the size of float32

        Raises:
            ArtifactError: the folder is not there, or the disk refuses.
            ConfigError: another dtype, or keys too large for float16.
        """
        self._executor.check()
        state.save(
            path,
            self._executor,
            artifact=fingerprint(self.manifest),
            pending=self._pending,
            conversation=self._conversation,
            catalyst=self.catalyst if self.manifest.queries == "catalyst" else None,
            dtype=dtype,
        )

    def load(self, path: str | Path) -> None:
        """Go on from a saved state, in place of what the session holds, with its catalyst.

        To go on with another catalyst, set it after this call.

        Raises:
            ArtifactError: no state file, a damaged one, or one of another artifact.
            CacheError: more entries than this session has slots.
        """
        pending, conversation, catalyst = state.load(
            path, self._executor, fingerprint(self.manifest)
        )
        self._epoch += 1
        self._pending, self._conversation = pending, conversation
        if catalyst is not None:
            self.catalyst = catalyst


def _noted(ids: Iterator[int], chosen: list[int]) -> Iterator[int]:
    """The same ids, each added to `chosen` as it comes."""
    for token in ids:
        chosen.append(token)
        yield token
