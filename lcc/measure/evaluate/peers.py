"""The same questions for the same model in eager PyTorch: with the full cache, or a kvpress press.

kvpress (https://github.com/NVIDIA/kvpress) compresses a context once, after all of it was read with
the full cache: its peak is the whole text, and what is kept is chosen once, not cycle after cycle.
It compares at equal kept entries: compression_ratio = 1 - kept / tokens of the context.
"""

from __future__ import annotations

import time
from typing import Any

from lcc.env import needs_extra
from lcc.errors import ConfigError, LccError
from lcc.measure.evaluate.asking import END, perplexity_line
from lcc.measure.evaluate.catalog import score, settled
from lcc.measure.evaluate.eager import EagerModel, new_cache
from lcc.measure.evaluate.grid import Setting, Subject
from lcc.measure.evaluate.sample import Sample, question_first
from lcc.measure.evaluate.turn import asked

PRESSES = {
    "snapkv": "SnapKVPress",
    "knorm": "KnormPress",
    "keydiff": "KeyDiffPress",
    "streaming_llm": "StreamingLLMPress",
    "tova": "TOVAPress",
    "expected_attention": "ExpectedAttentionPress",
    "random": "RandomPress",
}
INSTALL = "pip install --no-deps kvpress==0.5.5 && pip install 'cachetools<6' 'fire<0.7'"


def kvpress() -> Any:
    """The package kvpress.

    It asks for an older transformers than lcc has, hence the unusual way to install it; all that it
    misses in a newer one is an argument that `EagerModel` gives.

    Raises:
        LccError: it is not there, or cannot be loaded beside this transformers.
    """
    try:
        import kvpress as package
    except ImportError as error:
        raise LccError(f"--press needs kvpress ({error}); do: {INSTALL}") from None
    return package


def open_peer(subject: Subject, model: EagerModel) -> PeerAsker:
    """What asks a model as the subject says."""
    press = None
    if subject.kind == "press":
        press = getattr(kvpress(), PRESSES[subject.policy])
    return PeerAsker(model, press, subject.budget)


class PeerAsker:
    """Asks an eager model. A text longer than it was trained for is refused.

    press       a class of kvpress; None = the full cache
    kept        entries per KV head that stay of a context; shorter ones stay whole
    """

    def __init__(self, model: EagerModel, press: Any, kept: int | None) -> None:
        self.model, self.window = model, model.window
        self.encode = model.tokenizer.encode
        self._press, self._kept = press, kept

    def ask(
        self, sample: Sample, setting: Setting, *, chat: bool, kept_map: bool = False
    ) -> dict[str, Any]:
        """Read the context, compress it, ask, answer greedily, score.

        A query-aware press sees the question before the context, as an artifact does, and behind
        it: there presses look for what to keep (kvpress' own evaluation puts it there).
        """
        if chat and self.model.tokenizer.chat_template is None:
            raise LccError("the model has no chat template; leave out --chat")
        before, after = self.model.turn if chat else ("", "")
        if setting == "query-aware":
            sample = question_first(sample, lambda text: len(self.encode(text)))
        context, rest = before + sample.context, asked(sample, after)
        if setting == "query-aware" and self._press is not None:
            end = len(f"\n{sample.question}")
            context, rest = context + rest[:end], rest[end:]
        ids, last = self.model.tokenizer.encode(context, prefix=not before), self.encode(rest)
        if not last:  # the answer follows the last token of what is read
            ids, last = ids[:-1], ids[-1:]
        total = len(ids) + len(last) + sample.max_new_tokens
        if self.window is not None and total > self.window:
            raise LccError(f"made for {self.window:,} tokens, the sample takes {total:,}")
        cache, seconds = self._read(ids)
        answer, said = "", list[int]()
        for token in self.model.generate(last, len(ids), cache, sample.max_new_tokens):
            said.append(token)
            answer = self.model.tokenizer.decode(said)
            if settled(answer, sample):
                break
        return {
            "depth": sample.depth,
            "tokens": sample.tokens,
            "score": score(answer, sample),
            "answer": answer,
            "wanted": sample.answers,
            "cycles": None,
            "read_seconds": seconds,
        }

    def perplexity(self, ids: list[int]) -> dict[str, Any]:
        """Of the last tokens behind a compressed text; with the full cache by position, too.

        The special tokens that begin a text are read, too, and do not count.
        """
        prefix = self.model.tokenizer.prefix
        whole = [*prefix, *ids]
        start = time.perf_counter()
        if self._press is None:
            nats = self.model.nats(whole, 0, new_cache())[len(prefix) :]
            return perplexity_line(nats, time.perf_counter() - start)
        first = len(whole) - END
        if len(ids) < END + 2:
            raise LccError(f"--tasks perplexity: wanted {END + 2} tokens or more, got {len(ids)}")
        # The last token is read again to predict what follows it, so it stays out of the cache.
        cache, seconds = self._read(whole[: first - 1])
        start = time.perf_counter()
        nats = self.model.nats(whole[first - 1 :], first - 1, cache)
        return perplexity_line(nats, seconds + time.perf_counter() - start) | {
            "by_position": [],
            "tokens": len(ids),
        }

    def _read(self, ids: list[int]) -> tuple[Any, float]:
        """The cache, and the seconds that it takes alone, though the text may be read already."""
        reading, start = self.model.read(ids), time.perf_counter()
        if self._press is None or self._kept is None:
            return self.model.full(reading), reading.seconds
        cache = self.model.pressed(reading, self._press, self._kept)
        return cache, reading.seconds + time.perf_counter() - start


def check_presses(names: list[str]) -> None:
    """Refuse presses that are not offered, and a kvpress that is not there."""
    for name in names:
        if name not in PRESSES:
            raise ConfigError(f"--press: no press {name!r}; there are: {', '.join(PRESSES)}")
    with needs_extra("compile"):
        import torch  # noqa: F401
    if names:
        kvpress()
