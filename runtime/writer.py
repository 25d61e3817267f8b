"""The writing half of a session: the next token, until a text ends."""

import time
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, TypedDict, Unpack

import numpy as np

from lcc.errors import CacheError, ConfigError
from lcc.runtime.reader import Ids, Reader
from lcc.runtime.text.detokenize import Detokenizer, StopStrings
from lcc.runtime.text.sampling import Sampler, Sampling

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


class _Greedy(TypedDict):
    temperature: float
    repetition_penalty: float


GREEDY = _Greedy(temperature=0.0, repetition_penalty=1.0)
"""The most probable token, whatever generation_config.json says: to compare with others."""


class Writer(Reader):
    """A text that is read and continued. For one thread at a time."""

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

    def _ends(self, options: Options) -> frozenset[int]:
        eos = options.get("eos")
        if eos is None:
            return self.tokenizer.eos_ids
        ids = [eos] if isinstance(eos, Integral) else _listed(eos)
        if ids is None or not all(isinstance(each, Integral) for each in ids):
            raise ConfigError(f"eos is {eos!r}, wanted token ids; a text goes to stop")
        return frozenset(int(each) for each in ids)

    def _ids(
        self, prompt: str | Ids | None, options: Options, *, prefix: bool = True
    ) -> Iterator[int]:
        defaults = self.tokenizer.generation_config
        limit = options.get("max_new_tokens")
        limit = defaults.get("max_new_tokens") if limit is None else limit
        if limit is not None and (not isinstance(limit, Integral) or limit < 1):
            raise ConfigError(f"max_new_tokens is {limit!r}, wanted a whole number, 1 or more")
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
        else:
            self._epoch += 1
        epoch, count = self._epoch, 0
        self._clock.first_token_seconds = None
        while limit is None or count < limit:
            self._check_unmoved("generate", epoch)
            start = time.perf_counter()
            while self._pending:
                self._advance(self._pending, self._catalyst_ids)
            self._check_unmoved("generate", epoch)
            token = sampler(self._executor.logits(), np.flatnonzero(seen))
            self._pending, seen[token] = [token], True
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
        stops: Sequence[str],
        callback: Callable[[str], object] | None,
        options: Options,
    ) -> Iterator[str]:
        self.tokenizer.check_text()
        return self._text(ids, StopStrings(stops), callback, self._ends(options))

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


def stop_strings(stop: str | Sequence[str] | None) -> list[str]:
    """One or several as a list; raises ConfigError where they are no texts."""
    texts = [stop] if isinstance(stop, str) else [] if stop is None else _listed(stop)
    if texts is None or not all(isinstance(each, str) for each in texts):
        raise ConfigError(f"stop is {stop!r}, wanted text or a list of texts")
    return texts


def _listed(several: object) -> list[Any] | None:
    """What may be asked for more than once; None = a text, an iterator, or nothing to list."""
    if isinstance(several, str | Iterator):
        return None
    try:
        return list(several)  # type: ignore[call-overload]
    except TypeError:
        return None
