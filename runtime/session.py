"""What a user sees: feed text of any length, generate, chat, rewind, save, load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from lcc.config import CacheConfig
from lcc.errors import CacheError, ConfigError
from lcc.runtime.archive.rows import ArchiveRows
from lcc.runtime.core.executor import Cycle, Executor
from lcc.runtime.notes import load_state, save_state
from lcc.runtime.stats import Stats, peak_rss_bytes
from lcc.runtime.text.catalyst import Catalyst
from lcc.runtime.text.chat import Message
from lcc.runtime.text.encoding import Encoder, Ids
from lcc.runtime.text.feeding import Progress
from lcc.runtime.text.passages import read
from lcc.runtime.text.reading import Feeding, Reader
from lcc.runtime.text.talking import Talk
from lcc.runtime.text.writing import Callback, Options, Writer, stop_strings

if TYPE_CHECKING:
    from lcc.runtime.model import Model


class Session:
    """One text, read and continued, in a cache of fixed size. For one thread at a time.

        session = lcc.runtime.open("smollm2.lcc")
        session.feed(open("book.txt").read())
        for piece in session.generate("Who is the narrator?", max_new_tokens=64):
            print(piece, end="")
        session.save("book.lccstate")

    Whatever stops a call, be it Ctrl-C, a callback or a loop that was left, the session holds every
    token up to that point and can go on from there. `reset` and `rewind` go back. Its parts: an
    executor (token ids in a cache), a reader, a writer (the next token), a talk (the conversation).

    model, manifest, tokenizer  what all sessions of an artifact share
    capacity, cycles            slots per KV head; the last 1,000 cycles
    """

    def __init__(self, model: Model, sizes: CacheConfig, seed: int | None = None) -> None:
        """Use `Model.session`; `sizes`: those compiled, or lower ones."""
        begin = time.perf_counter()
        self.model, self.manifest, self.tokenizer = model, model.manifest, model.tokenizer
        self._executor = executor = Executor(self.manifest, sizes, model.engine)
        seconds = model.load_seconds + time.perf_counter() - begin
        self._encoder = encoder = Encoder(self.tokenizer, self.manifest)
        self._catalyst = Catalyst(executor, encoder, self.manifest)
        self._reader = reader = Reader(executor, self._catalyst, sizes.recent_size, seconds)
        self._writer = Writer(reader, encoder)
        self._talk = Talk(reader, self._writer, encoder, model.template)
        self.capacity, self.cycles = executor.limits.capacity, reader.cycles
        self._seed = seed
        self.reset()

    def __repr__(self) -> str:
        return (
            f"<Session {self.manifest.model.name}: {self.tokens:,} tokens read, "
            f"{self.used:,} of {self.capacity:,} entries used>"
        )

    @property
    def tokens(self) -> int:
        """Tokens of the text so far, fed and generated."""
        return self._reader.tokens

    @property
    def used(self) -> int:
        """Entries per KV head in the cache."""
        return self._executor.used

    @property
    def rewindable(self) -> int:
        """How many of the newest tokens `rewind` can take back: those since the last cycle.

        Of a model with recurrent layers, those since the last text, prompt or message began.
        """
        return self._reader.rewindable

    @property
    def on_cycle(self) -> Callable[[Cycle], object] | None:
        """Called after each cycle; `kept_tokens()` then says what survived. May be set."""
        return self._reader.on_cycle

    @on_cycle.setter
    def on_cycle(self, hook: Callable[[Cycle], object] | None) -> None:
        self._reader.on_cycle = hook

    @property
    def reads_catalyst(self) -> bool:
        """Whether cycles run a catalyst prompt."""
        return self._executor.reads_catalyst

    @property
    def catalyst(self) -> str | list[int]:
        """What cycles look for, text or ids; "beginning" = the text's first tokens. May be set."""
        return self._catalyst.value

    @catalyst.setter
    def catalyst(self, catalyst: str | Ids) -> None:
        self._catalyst.set(catalyst)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens that begin one."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Ids) -> str:
        """The text of token ids, without special tokens; ConfigError where one is not known."""
        return self._encoder.decode(ids)

    def feed(
        self,
        text: str | Ids,
        *,
        protect: bool = False,
        catalyst: str | Ids | None = None,
        progress: Callable[[Progress], object] | None = None,
        stop: Callable[[], bool] | None = None,
        prefix: bool = True,
        last: bool = False,
        plain: bool = False,
    ) -> int:
        """Read a text of any length; returns how many of its tokens were read.

        A text that follows another one has the ids that it has when both are tokenized at once.

        Args:
            text: Text, or token ids, which are read as they are.
            protect: Never evict anything read up to the end of this text.
            catalyst: For the cycles of this call only.
            progress: Called after every step; returning False stops.
            stop: Called before every step; returning True stops.
            prefix: Begin an empty session with the tokenizer's special tokens.
            last: The text ends here and a question follows: a policy with a `tail_size` then
                protects fewer recent entries in the last cycle of this call.
            plain: Control tokens in the text, such as <|im_end|>, are read as plain text.

        Raises:
            ConfigError: the text is empty, or neither text nor ids of the vocabulary.
            CacheError: more is protected than a cycle can keep, the cache is full and "none" never
                evicts, or a callback has moved the session, which keeps what it holds.
        """
        self._encoder.parts(text, "text")  # reports a mistake before anything is read
        ids = None if catalyst is None else self._catalyst.encode(catalyst)
        how = Feeding(catalyst=ids, protect=protect, last=last, progress=progress, stop=stop)
        return read(self._reader, self._encoder, text, "text", how, prefix=prefix, plain=plain)

    def nll(self, ids: Ids) -> np.ndarray:
        """Read token ids as `feed` does, and return their negative log likelihoods.

        [n] float32, in nats, of each token given what the cache held. The first token of a text,
        which nothing predicts, has 1e30.
        """
        found: list[np.ndarray] = []
        self._reader.feed(self._encoder.parts(ids, "ids"), Feeding(nll=found))
        return np.concatenate(found)[-len(ids) :]

    def next_logits(self) -> np.ndarray:
        """[V] float32 for the token after the last one, fed or generated; a copy."""
        self._reader.read_pending()
        return self._executor.logits().copy()

    def generate_ids(
        self, prompt: str | Ids | None = None, **options: Unpack[Options]
    ) -> Iterator[int]:
        """Token ids as they are chosen, the one that ends the text included.

        The prompt is read first, as by `feed`; for options see `lcc.runtime.text.writing.Options`.
        Every id given out is part of the session, whether the loop goes on or not.

        Raises as `Writer.ids`.
        """
        return self._writer.ids(prompt, options)

    def generate(
        self,
        prompt: str | Ids | None = None,
        *,
        stop: str | Sequence[str] | None = None,
        callback: Callback | None = None,
        chat: bool = False,
        prefix: bool = True,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """Pieces of text as they become certain; otherwise as `generate_ids`.

        Tokens of a stop string, or of text that was held back, are in the session.

        Args:
            prompt: Read first; None = go on from what was read.
            stop: Strings that end the text and are not given out, besides the model's own.
            callback: Called with each piece; returning False stops.
            chat: The prompt is a user's message: put it into the model's chat template, after
                whatever the session holds.
            prefix: As in `feed`; a rendered chat template has its own.
            **options: As in `generate_ids`.
        """
        stops = stop_strings(stop)
        if not chat:
            ids = self._writer.ids(prompt, options, prefix=prefix)
            return self._writer.pieces(ids, stops, callback, options)
        if not isinstance(prompt, str) or not prompt:
            raise ConfigError("chat needs a prompt: the text of the user's message")
        message = [{"role": "user", "content": prompt}]
        rendered = self._talk.render(message, {}, options, known=False)
        return self._talk.answer(rendered, stops, callback, options, known=False)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        stop: str | Sequence[str] | None = None,
        callback: Callback | None = None,
        template_options: Mapping[str, Any] | None = None,
        plain: bool = False,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """The answer to a conversation, in the model's own template; otherwise as `generate`.

        A list that continues the last one (its messages, the answer, a new message) is read from
        there on; the last one itself asks for another answer. Where the template tells the last
        answer in other tokens (it leaves out a thought), those are read in its place, if no cycle
        has run since and nothing else was read. Any other list is read as a whole, after what the
        session holds, and nothing before the first piece is asked for.

        Args:
            messages: [{"role": "user", "content": "..."}, ...].
            template_options: Handed to the template: {"tools": [...]}.
            plain: Control tokens in the messages are read as plain text.
            stop: As in `generate`.
            callback: As in `generate`.
            **options: As in `generate`.

        Raises:
            ConfigError: there is no template, it refuses the messages, or an option is wrong.
        """
        stops = stop_strings(stop)
        told = self.tokenizer.literals.mark(messages) if plain else messages
        rendered = self._talk.render(told, template_options or {}, options)
        return self._talk.answer(rendered, stops, callback, options)

    def distill(self) -> None:
        """Run a cycle now, where there is something to evict: e.g. before a save."""
        self._reader.distill()

    def kept_tokens(self, layer: int) -> np.ndarray:
        """[Hkv, used] int64, a copy: the token position of every entry of a layer, ascending."""
        if layer not in range(count := len(self.manifest.model.layers)):
            raise ConfigError(f"layer is {layer}, the model has {count}; wanted 0 to {count - 1}")
        return self._executor.kept_tokens(layer)

    def rewind(self, count: int) -> None:
        """Take back the newest tokens; CacheError where some were read before the last cycle."""
        self._reader.rewind(count)
        self._talk.conversation = None

    def reset(self) -> None:
        """Forget everything that was read; buffers, catalyst and hooks stay."""
        self._reader.reset()
        self._talk.conversation = None
        if self._seed is not None:
            self._executor.numbers["seed"] = self._seed

    def attach(
        self,
        path: str | Path,
        *,
        dtype: str = "float16",
        limit_bytes: int | None = None,
    ) -> None:
        """Open an archive for this session, as `Model.session` does; nothing may be read yet.

        Raises as `Model.session`; CacheError where something was read.
        """
        if self.tokens:
            raise CacheError("an archive begins with a text; reset() the session first")
        self._executor.check_archive()
        rows = ArchiveRows.open(path, self.manifest, dtype=dtype, limit_bytes=limit_bytes)
        self._executor.attach(rows)

    def close(self) -> None:
        """Let others open the archive; the session goes on without one, and cannot recall."""
        self._executor.detach()

    def stats(self) -> Stats:
        """Times, rates, cycles, entries and bytes, until now."""
        archive, recall = self._executor.archive, self._reader.recall
        rows = None if archive is None else self._executor.numbers["archived"]
        return Stats(
            recalled=None if recall is None else recall.returned,
            archive_rows=rows,
            archive_bytes=None if archive is None else archive.archive.file_bytes,
            archive_stopped=None if archive is None else archive.stopped,
            **asdict(self._reader.clock),
            tokens=self.tokens,
            entries=self.used,
            capacity=self.capacity,
            cache_bytes=self._executor.cache_bytes,
            held_bytes=self._executor.held_bytes,
            peak_rss_bytes=peak_rss_bytes(),
        )

    def save(self, path: str | Path, *, dtype: Literal["float32", "float16"] | None = None) -> None:
        """Write what the session holds to a file: `used` entries, not the whole cache.

        The catalyst is part of it. `dtype` is that of keys and values; None = as the cache has it.

        Raises:
            ArtifactError: the folder is not there, or the disk refuses.
            ConfigError: another dtype, or keys too large for float16.
        """
        save_state(path, self._reader, self._talk, self._catalyst, dtype=dtype)

    def load(self, path: str | Path) -> None:
        """Go on from a saved state, with its catalyst; to use another one, set it after this call.

        Raises:
            ArtifactError: no state file, a damaged one, or one of another artifact.
            CacheError: more entries than this session has slots.
        """
        load_state(path, self._reader, self._talk, self._catalyst)
