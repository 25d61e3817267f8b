"""The same questions for the same model in eager PyTorch: with the full cache, or a kvpress press.

kvpress (https://github.com/NVIDIA/kvpress) compresses a context once, after all of it was read with
the full cache: its peak is the whole text, and what is kept is chosen once, not cycle after cycle.
It compares at equal kept entries: compression_ratio = 1 - kept / tokens of the context.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lcc.env import needs_extra
from lcc.errors import ConfigError, LccError
from lcc.evaluate.asking import END, perplexity_line
from lcc.evaluate.catalog import score
from lcc.evaluate.grid import Setting, Subject
from lcc.evaluate.sample import Sample, question_first
from lcc.evaluate.turn import asked, halves

if TYPE_CHECKING:
    from lcc.models import LoadedModel
    from lcc.runtime.text import Tokenizer

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
CHUNK = 1024  # tokens whose logits exist at one time


def kvpress() -> Any:
    """The package kvpress.

    It asks for an older transformers than lcc has, hence the unusual way to install it; all that it
    misses in a newer one is an argument that `PeerAsker` gives.

    Raises:
        LccError: it is not there, or cannot be loaded beside this transformers.
    """
    try:
        import kvpress as package
    except ImportError as error:
        raise LccError(f"--press needs kvpress ({error}); do: {INSTALL}") from None
    return package


def open_peer(subject: Subject, loaded: LoadedModel) -> PeerAsker:
    """What asks a loaded model as the subject says."""
    press = None
    if subject.kind == "press":
        press = getattr(kvpress(), PRESSES[subject.policy])
    return PeerAsker(loaded, press, subject.budget)


class PeerAsker:
    """Asks an eager model. A text longer than it was trained for is refused.

    press       a class of kvpress; None = the full cache
    kept        entries per KV head that stay of a context; shorter ones stay whole
    """

    def __init__(self, loaded: LoadedModel, press: Any, kept: int | None) -> None:
        model: Any = loaded.module
        self.model = model
        self.window = loaded.trained_window
        self.tokenizer, self._turn = _text_of(loaded.files)
        self.encode = self.tokenizer.encode
        self._press, self._kept = press, kept
        ends = model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])

    def ask(
        self, sample: Sample, setting: Setting, *, chat: bool, kept_map: bool = False
    ) -> dict[str, Any]:
        """Read the context, compress it, ask, answer greedily, score.

        A query-aware press sees the question before the context, as an artifact does, and behind
        it: there presses look for what to keep (kvpress' own evaluation puts it there).
        """
        before, after = self._turn if chat else ("", "")
        if setting == "query-aware":
            sample = question_first(sample, lambda text: len(self.encode(text)))
        context, rest = before + sample.context, asked(sample, after)
        if setting == "query-aware" and self._press is not None:
            end = len(f"\n{sample.question}")
            context, rest = context + rest[:end], rest[end:]
        start = time.perf_counter()
        ids, last = self.tokenizer.encode(context, prefix=not before), self.encode(rest)
        if not last:  # the answer follows the last token of what is read
            ids, last = ids[:-1], ids[-1:]
        total = len(ids) + len(last) + sample.max_new_tokens
        if self.window is not None and total > self.window:
            raise LccError(f"made for {self.window:,} tokens, the sample takes {total:,}")
        cache = self._read(ids)
        seconds = time.perf_counter() - start
        answer = self.tokenizer.decode(self._generate(last, len(ids), cache, sample.max_new_tokens))
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
        """Of the last tokens behind a compressed text; with the full cache by position, too."""
        start = time.perf_counter()
        if self._press is None:
            nats = self._nats(ids, 0, self._cache())
            return perplexity_line(nats, time.perf_counter() - start)
        first = len(ids) - END
        if first < 2:
            raise LccError(f"--tasks perplexity: wanted {END + 2} tokens or more, got {len(ids)}")
        # The last token is read again to predict what follows it, so it stays out of the cache.
        cache = self._read(ids[: first - 1])
        nats = self._nats(ids[first - 1 :], first - 1, cache)
        return perplexity_line(nats, time.perf_counter() - start) | {
            "by_position": [],
            "tokens": len(ids),
        }

    def _cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache()

    def _read(self, ids: list[int]) -> Any:
        import torch

        cache, press, options = self._cache(), contextlib.nullcontext(), dict[str, Any]()
        if self._press is not None and self._kept is not None and self._kept < len(ids):
            # Half an entry more, for the press rounds down what is left of the ratio.
            ratio = 1 - (self._kept + 0.5) / len(ids)
            press = self._press(compression_ratio=ratio)(self.model)
            # kvpress 0.5.5 reads it, and transformers no longer hands it to its layers by itself.
            options["cache_position"] = torch.arange(len(ids))
        with torch.no_grad(), press:
            self.model.base_model(
                input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, **options
            )
        return cache

    def _generate(self, ids: list[int], position: int, cache: Any, limit: int) -> list[int]:
        import torch

        answer: list[int] = []
        with torch.no_grad():
            while len(answer) < limit:
                places = torch.arange(position, position + len(ids))[None]
                logits = self.model(
                    input_ids=torch.tensor([ids]),
                    past_key_values=cache,
                    position_ids=places,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits
                position += len(ids)
                ids = [int(logits[0, -1].argmax())]
                if ids[0] in self._ends:
                    break
                answer += ids
        return answer

    def _nats(self, ids: list[int], position: int, cache: Any) -> np.ndarray:
        """[n] float32, -log probability of each of these ids; 0 for the first one."""
        import torch

        result = [np.zeros(1, np.float32)]
        with torch.no_grad():
            for start in range(0, len(ids) - 1, CHUNK):
                part = torch.tensor(ids[start : min(start + CHUNK, len(ids) - 1)])
                places = torch.arange(position + start, position + start + len(part))
                logits = self.model(
                    input_ids=part[None],
                    past_key_values=cache,
                    position_ids=places[None],
                    use_cache=True,
                ).logits[0]
                following = torch.tensor(ids[start + 1 : start + 1 + len(part)])
                losses = torch.nn.functional.cross_entropy(logits, following, reduction="none")
                result.append(losses.numpy())
        return np.concatenate(result)


def _text_of(files: dict[str, bytes]) -> tuple[Tokenizer, tuple[str, str]]:
    """The runtime's own tokenizer, so that both read the same ids, and the halves of a turn."""
    from lcc.runtime.text import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        tokenizer = Tokenizer(folder)
        return tokenizer, halves(tokenizer)


def check_presses(names: list[str]) -> None:
    """Refuse presses that are not offered, and a kvpress that is not there."""
    for name in names:
        if name not in PRESSES:
            raise ConfigError(f"--press: no press {name!r}; there are: {', '.join(PRESSES)}")
    with needs_extra("compile"):
        import torch  # noqa: F401
    if names:
        kvpress()
