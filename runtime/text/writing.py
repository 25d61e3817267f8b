"""The next token, until a text ends; and its text in pieces."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypedDict

import numpy as np

from lcc.errors import CacheError, ConfigError
from lcc.runtime.text.detokenize import Detokenizer, StopStrings
from lcc.runtime.text.encoding import Encoder, Ids
from lcc.runtime.text.passages import read
from lcc.runtime.text.reading import Feeding, Reader
from lcc.runtime.text.sampling import Sampler, Sampling

CONTEXT = 4  # ids decoded along with the first one generated

Callback = Callable[[str], object]


class Options(TypedDict, total=False):
    """How to generate; what is not given, or None, is as generation_config.json says.

    max_new_tokens  where it says nothing: until the model ends the text
    temperature, top_k, top_p, min_p, repetition_penalty, seed
                    see `Sampling`; where it says nothing: greedy
    eos             ids that end the text; [] = none
    recall          False: bring nothing back from the archive for this prompt
    """

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    eos: int | Sequence[int] | None
    recall: bool | None


class _Greedy(TypedDict):
    temperature: float
    repetition_penalty: float


GREEDY = _Greedy(temperature=0.0, repetition_penalty=1.0)
"""The most probable token, whatever generation_config.json says: to compare with others."""


class Writer:
    """Continues the text of a reader."""

    def __init__(self, reader: Reader, encoder: Encoder) -> None:
        self._reader, self._encoder = reader, encoder

    def ids(
        self,
        prompt: str | Ids | None,
        options: Options,
        *,
        prefix: bool = True,
        drop: int = 0,
        alone: bool = False,
    ) -> Iterator[int]:
        """Token ids as they are chosen, the one that ends the text included.

        Args:
            prompt: Read first, when the first id is asked for; None = go on from what is there.
            options: See `Options`.
            prefix: Begin an empty session with the tokenizer's special tokens.
            drop: Newest tokens to take back before the prompt is read.
            alone: The prompt is a text of its own and does not go on from what was read.

        Raises:
            ConfigError: at once, an option out of range, or an empty prompt.
            CacheError: at once, nothing was read yet; later, another call has moved the session.
        """
        defaults = self._encoder.tokenizer.generation_config
        limit = options.get("max_new_tokens")
        limit = defaults.get("max_new_tokens") if limit is None else limit
        if limit is not None and (not isinstance(limit, Integral) or limit < 1):
            raise ConfigError(f"max_new_tokens is {limit!r}, wanted a whole number, 1 or more")
        asked = {k: v for k, v in options.items() if k not in ("max_new_tokens", "eos", "recall")}
        sampling = Sampling.of(defaults, **asked)
        if prompt is not None:
            self._encoder.parts(prompt, "prompt")  # reports a mistake now, not in the loop
        elif self._reader.tokens == 0:
            raise CacheError("nothing was read yet, nothing to go on from; give a prompt")
        asks = options.get("recall") is not False
        how = _Prompt(prompt, prefix, drop, alone, asks)
        return self._choose(how, limit, self._ends(options), sampling)

    def _ends(self, options: Options) -> frozenset[int]:
        eos = options.get("eos")
        if eos is None:
            return self._encoder.ends
        ids = [eos] if isinstance(eos, Integral) else _listed(eos)
        if ids is None or not all(isinstance(each, Integral) for each in ids):
            raise ConfigError(f"eos is {eos!r}, wanted token ids; a text goes to stop")
        return frozenset(int(each) for each in ids)

    def _choose(
        self,
        prompt: "_Prompt",
        limit: int | None,
        ends: frozenset[int],
        sampling: Sampling,
    ) -> Iterator[int]:
        reader, begin, sampler = self._reader, time.perf_counter(), Sampler(sampling)
        seen = np.zeros(self._encoder.vocab_size, bool)
        if prompt.text is None:
            reader.epoch += 1
        else:
            seen[self._penalized(prompt.text, sampling)] = True
            self._read(prompt, prompt.text)
        epoch, count = reader.epoch, 0
        reader.clock.first_token_seconds = None
        while limit is None or count < limit:
            reader.check_unmoved("generate", epoch)
            start = time.perf_counter()
            reader.read_pending()
            reader.check_unmoved("generate", epoch)
            token = sampler(reader.executor.logits(), np.flatnonzero(seen))
            reader.pending, seen[token] = [token], True
            now, count = time.perf_counter(), count + 1
            if count == 1:
                reader.clock.first_token_seconds = now - begin
            else:  # the first needs no step: its logits came with the prompt
                reader.clock.decode_tokens += 1
                reader.clock.decode_seconds += now - start
            yield token
            if token in ends:
                return

    def _read(self, prompt: "_Prompt", text: str | Ids) -> None:
        if not prompt.alone and not prompt.drop:
            how = Feeding(asks=prompt.asks)
            read(self._reader, self._encoder, text, "prompt", how, prefix=prompt.prefix)
            return
        prefix = prompt.prefix and self._reader.tokens == 0
        parts = self._encoder.parts(text, "prompt", prefix=prefix)
        self._reader.feed(parts, Feeding(asks=prompt.asks), drop=prompt.drop)

    def _penalized(self, prompt: str | Ids, sampling: Sampling) -> list[int]:
        """Ids of the prompt that a repetition penalty lowers."""
        return [] if sampling.repetition_penalty == 1 else self._encoder.all_ids(prompt, "prompt")

    def pieces(
        self,
        ids: Iterator[int],
        stops: Sequence[str],
        callback: Callback | None,
        options: Options,
    ) -> Iterator[str]:
        """The text of generated ids, in pieces as they become certain.

        Args:
            ids: From `ids`.
            stops: Strings that end the text and are not given out, besides the model's own.
            callback: Called with each piece; returning False stops.
            options: Those of `ids`.
        """
        self._encoder.tokenizer.check_text()
        strings = StopStrings([*stops, *self._encoder.stops])
        return self._text(ids, strings, callback, self._ends(options))

    def _text(
        self,
        ids: Iterator[int],
        stops: StopStrings,
        callback: Callback | None,
        ends: frozenset[int],
    ) -> Iterator[str]:
        detokenizer = None
        for token in ids:
            if detokenizer is None:
                context = self._reader.executor.since_cycle[-CONTEXT:]
                detokenizer = Detokenizer(self._encoder.tokenizer.decode, context)
            if token in ends:
                break
            piece = stops.add(detokenizer.add(token))
            if stops.found is None and token in self._encoder.tokenizer.special_ids:
                name = self._encoder.tokenizer.decode([token], special=True)
                piece += stops.add(name, shown=False)
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


@dataclass(frozen=True)
class _Prompt:
    """What is read before the first token, see `Writer.ids`."""

    text: str | Ids | None
    prefix: bool
    drop: int
    alone: bool
    asks: bool


def stop_strings(stop: str | Sequence[str] | None) -> list[str]:
    """One or several as a list; raises ConfigError where they are no texts."""
    texts = [stop] if isinstance(stop, str) else [] if stop is None else _listed(stop)
    if texts is None or not all(isinstance(each, str) for each in texts):
        raise ConfigError(f"stop is {stop!r}, wanted text or a list of texts")
    return texts


def _listed(several: object) -> list[Any] | None:
    """What may be given more than once; None = a text, an iterator, or nothing to list."""
    if isinstance(several, str | Iterator):
        return None
    try:
        return list(several)  # type: ignore[call-overload]
    except TypeError:
        return None
