"""What a user sees: feed text of any length, generate, chat, rewind, save, load."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from lcc.errors import CacheError, ConfigError
from lcc.manifest import fingerprint
from lcc.runtime import state
from lcc.runtime.chat import ChatTemplate, Conversation, Message, load_template
from lcc.runtime.detokenize import Detokenizer, StopStrings
from lcc.runtime.reader import Ids, Reader
from lcc.runtime.sampling import Sampler, Sampling
from lcc.runtime.stats import Stats, peak_rss_bytes

CONTEXT = 4  # ids decoded along with the first one generated


class Options(TypedDict, total=False):
    """How to generate; what is not given, or None, is as generation_config.json says.

    max_new_tokens  where it says nothing: until the model ends the text
    temperature, top_k, top_p, min_p, repetition_penalty, seed
                    see `Sampling`; where it says nothing: greedy
    eos             ids that end the text; [] = none
    """

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    eos: int | Sequence[int] | None


class Session(Reader):
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
    _last: int | None = None  # the token chosen last

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

    def generate_ids(
        self, prompt: str | Ids | None = None, **options: Unpack[Options]
    ) -> Iterator[int]:
        """Token ids as they are chosen, the one that ends the text included.

        prompt      read first, as by `feed`
        options     see `Options`

        Every id given out is part of the session, whether the loop goes on or not.

        Raises:
            ConfigError: an option out of range, or an empty prompt.
            CacheError: nothing was read yet, or another call has moved the session meanwhile.
        """
        return self._ids(prompt, options)

    def generate(
        self,
        prompt: str | Ids | None = None,
        *,
        stop: str | Sequence[str] = (),
        callback: Callable[[str], object] | None = None,
        chat: bool = False,
        prefix: bool = True,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """Pieces of text as they become certain; otherwise as `generate_ids`.

        stop        strings that end the text and are not given out
        callback    called with each piece; returning False stops
        chat        the prompt is a user's message: put it into the model's chat template
        prefix      as in `feed`; a rendered chat template has its own

        Tokens of a stop string, or of text held back when the loop was left, are in the session.
        """
        if not chat:
            return self._pieces(self._ids(prompt, options, prefix=prefix), stop, callback, options)
        if not isinstance(prompt, str) or not prompt:
            raise ConfigError("chat needs a prompt: the text of the user's message")
        messages = [{"role": "user", "content": prompt}]
        return self.chat(messages, stop=stop, callback=callback, **options)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        stop: str | Sequence[str] = (),
        callback: Callable[[str], object] | None = None,
        template_options: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """The answer to a conversation, in the model's own template; otherwise as `generate`.

        messages            [{"role": "user", "content": "..."}, ...]; a list that continues the
                            last one (its messages, the answer, a new message) is read from there
                            on, any other one as a whole, after what the session holds
        template_options    handed to the template, e.g. {"tools": [...]}

        Raises:
            ConfigError: the model has no template, or the template refuses the messages.
        """
        if self._template is None:
            self._template = load_template(self.tokenizer)
        rendered = self._template.render(messages, **(template_options or {}))
        known = self._conversation
        text = rendered if known is None else known.unread(rendered)
        ids = self._ids(rendered if text is None else text, options, prefix=False)
        return self._answer(self._pieces(ids, stop, callback, options), rendered)

    def _answer(self, pieces: Iterator[str], rendered: str) -> Iterator[str]:
        answer, self._last, before = "", None, self.tokens
        try:
            for piece in pieces:
                answer += piece
                yield piece
        finally:
            if self._last is None:  # the prompt was not read to its end
                self._take_back(self.tokens - before)
            else:
                ended = self._last in self.tokenizer.eos_ids
                eos = self.tokenizer.decode([self._last], special=True) if ended else None
                self._conversation = Conversation.of(rendered, answer, eos)

    def _take_back(self, count: int) -> None:
        """Undo a message read in part, so that it is not read twice; a cycle cannot be undone."""
        known = self._conversation
        available = self._executor.rewindable + len(self._pending)
        if count > available or self._executor.broken:
            self._conversation = None
        elif count > 0:
            self.rewind(count)
            self._conversation = known

    def _ends(self, options: Options) -> frozenset[int]:
        eos = options.get("eos")
        if eos is None:
            return self.tokenizer.eos_ids
        return frozenset([eos] if isinstance(eos, int) else eos)

    def _ids(
        self, prompt: str | Ids | None, options: Options, *, prefix: bool = True
    ) -> Iterator[int]:
        defaults = self.tokenizer.generation_config
        limit = options.get("max_new_tokens")
        limit = defaults.get("max_new_tokens") if limit is None else limit
        if limit is not None and limit < 1:
            raise ConfigError(f"max_new_tokens is {limit}, wanted 1 or more")
        asked = {k: v for k, v in options.items() if k not in ("max_new_tokens", "eos")}
        sampling = Sampling.of(defaults, **asked)
        if prompt is not None:
            self._parts(prompt, "prompt")  # says what is wrong with it now, not in the loop
        elif self.tokens == 0:
            raise CacheError("nothing was read yet, nothing to go on from; give a prompt")
        return self._choose(prompt, prefix, limit, self._ends(options), sampling)

    def _choose(
        self,
        prompt: str | Ids | None,
        prefix: bool,
        limit: int | None,
        ends: frozenset[int],
        sampling: Sampling,
    ) -> Iterator[int]:
        begin, sampler = time.perf_counter(), Sampler(sampling)
        seen = np.zeros(self.manifest.model.vocab_size, bool)
        if prompt is not None:
            if sampling.repetition_penalty != 1:
                for part, _ in self._parts(prompt, "prompt"):
                    seen[part] = True
            self.feed(prompt, prefix=prefix)
        self._epoch += 1
        epoch, count = self._epoch, 0
        self._clock.first_token_seconds = None
        while limit is None or count < limit:
            if self._epoch != epoch:
                raise CacheError("another call has moved the session; begin a new generate()")
            start = time.perf_counter()
            while self._pending:
                self._advance(self._pending, self._catalyst_ids)
            token = sampler(self._executor.logits(), np.flatnonzero(seen))
            self._pending, self._last, seen[token] = [token], token, True
            now, count = time.perf_counter(), count + 1
            if count == 1:
                self._clock.first_token_seconds = now - begin
            else:  # the first needs no step: its logits came with the prompt
                self._clock.decode_tokens += 1
                self._clock.decode_seconds += now - start
            yield token
            if token in ends:
                return

    def _pieces(
        self,
        ids: Iterator[int],
        stop: str | Sequence[str],
        callback: Callable[[str], object] | None,
        options: Options,
    ) -> Iterator[str]:
        stops = StopStrings([stop] if isinstance(stop, str) else stop)
        return self._text(ids, stops, callback, self._ends(options))

    def _text(
        self,
        ids: Iterator[int],
        stops: StopStrings,
        callback: Callable[[str], object] | None,
        ends: frozenset[int],
    ) -> Iterator[str]:
        detokenizer = None
        for token in ids:
            if detokenizer is None:
                context = self._executor.since_cycle[-CONTEXT:]
                detokenizer = Detokenizer(self.tokenizer.decode, context)
            if token in ends:
                break
            piece = stops.add(detokenizer.add(token))
            if piece:
                yield piece
                if callback is not None and callback(piece) is False:
                    return
            if stops.found is not None:
                return
        rest = "" if detokenizer is None else stops.add(detokenizer.end())
        rest += "" if stops.found is not None else stops.end()
        if rest:
            yield rest
            if callback is not None:
                callback(rest)

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

        dtype       of keys and values; None = as the cache keeps them, which goes on bit for bit;
                    float16 is half the size of float32

        Raises:
            ConfigError: another dtype, or keys too large for float16.
        """
        self._executor.check()
        state.save(
            path,
            self._executor,
            artifact=fingerprint(self.manifest),
            pending=self._pending,
            conversation=self._conversation,
            dtype=dtype,
        )

    def load(self, path: str | Path) -> None:
        """Go on from a saved state, in place of what the session holds.

        Raises:
            ArtifactError: no state file, a damaged one, or one of another artifact.
            CacheError: more entries than this session has slots.
        """
        pending, conversation = state.load(path, self._executor, fingerprint(self.manifest))
        self._epoch += 1
        self._pending, self._conversation = pending, conversation
