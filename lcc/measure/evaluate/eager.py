"""A model in eager PyTorch that reads a text once, however many caches are made of it.

A press of kvpress chooses from a layer's keys and values when that layer is through with them, so
no press and no number of kept entries changes what is read: the last text's caches are kept, with
what went into each layer, and every press that is asked about it chooses from them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lcc.errors import LccError
from lcc.measure.evaluate.turn import halves

if TYPE_CHECKING:
    from lcc.runtime.text.tokenizer import Tokenizer
    from lcc.sources.models import LoadedModel

CHUNK = 1024  # tokens whose logits exist at one time


@dataclass(frozen=True)
class Reading:
    """A text that was read with the full cache.

    cache       as it was; never grown, only copied
    calls       of every layer's attention: the module and what it was called with, in which its
                input [1, tokens, hidden size] float32 takes most: of SmolLM2's 30 layers 69 kB a
                token
    seconds     that reading took
    """

    ids: list[int]
    cache: Any
    calls: list[tuple[Any, dict[str, Any]]]
    seconds: float


class EagerModel:
    """Reads, writes greedily, and gives negative log likelihoods.

    window      the longest text it was trained for, in tokens; None = it does not say
    turn        what stands before and behind a user's words in the chat template
    """

    def __init__(self, loaded: LoadedModel) -> None:
        module: Any = loaded.module
        self.module = module
        self.window = loaded.trained_window
        self.tokenizer, self.turn = _text_of(loaded.files)
        ends = module.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._last: Reading | None = None

    def read(self, ids: list[int]) -> Reading:
        """The full cache of a text; the same text again costs nothing."""
        import torch

        if self._last is not None and self._last.ids == ids:
            return self._last
        self._last = None  # the old one goes before the new one comes
        calls: list[tuple[Any, dict[str, Any]]] = []

        def watch(module: Any, _: Any, options: dict[str, Any], __: Any) -> None:
            calls.append((module, options))

        layers = getattr(self.module.base_model, "layers", [])
        attentions = [layer.self_attn for layer in layers if hasattr(layer, "self_attn")]
        hooks = [each.register_forward_hook(watch, with_kwargs=True) for each in attentions]
        start, cache = time.perf_counter(), new_cache()
        try:
            with torch.no_grad():
                self.module.base_model(
                    input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True
                )
        finally:
            for hook in hooks:
                hook.remove()
        self._last = Reading(list(ids), cache, calls, time.perf_counter() - start)
        return self._last

    def full(self, reading: Reading) -> Any:
        """A cache of all of a text, to go on with."""
        cache = new_cache()
        for index, layer in enumerate(reading.cache.layers):
            cache.update(layer.keys, layer.values, index)
        return cache

    def pressed(self, reading: Reading, press: Any, kept: int) -> Any:
        """A cache of what a press keeps of a text, `kept` entries per KV head.

        press       class of kvpress; a text that is no longer than `kept` stays whole

        Raises:
            LccError: the model's layers are not where kvpress looks for them.
        """
        import torch

        cache = self.full(reading)
        if kept >= len(reading.ids):
            return cache
        if len(reading.calls) != len(cache.layers):
            raise LccError(
                f"kvpress wants {len(cache.layers)} modules layers[i].self_attn, "
                f"got {len(reading.calls)}; leave --press out"
            )
        # Half an entry more, for the press rounds down what is left of the ratio.
        chooses = press(compression_ratio=1 - (kept + 0.5) / len(reading.ids))
        with torch.no_grad(), chooses(self.module):  # which lends each layer what it reads
            for module, options in reading.calls:
                # kvpress 0.5.5 reads places that transformers no longer hands to its layers.
                options = options | {
                    "past_key_values": cache,
                    "cache_position": torch.arange(len(reading.ids)),
                }
                chooses.forward_hook(module, [], options, [None, None])
        return cache

    def generate(self, ids: list[int], position: int, cache: Any, limit: int) -> Iterator[int]:
        """Token ids by greedy choice, without the one that ends the text.

        ids         read first, from that position of the text on
        """
        import torch

        for _ in range(limit):
            places = torch.arange(position, position + len(ids))[None]
            with torch.no_grad():
                logits = self.module(
                    input_ids=torch.tensor([ids]),
                    past_key_values=cache,
                    position_ids=places,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits
            position += len(ids)
            ids = [int(logits[0, -1].argmax())]
            if ids[0] in self._ends:
                return
            yield ids[0]

    def nats(self, ids: list[int], position: int, cache: Any) -> np.ndarray:
        """[n] float32, -log probability of each of these ids; 0 for the first one."""
        import torch

        result = [np.zeros(1, np.float32)]
        with torch.no_grad():
            for start in range(0, len(ids) - 1, CHUNK):
                part = torch.tensor(ids[start : min(start + CHUNK, len(ids) - 1)])
                places = torch.arange(position + start, position + start + len(part))
                logits = self.module(
                    input_ids=part[None],
                    past_key_values=cache,
                    position_ids=places[None],
                    use_cache=True,
                ).logits[0]
                following = torch.tensor(ids[start + 1 : start + 1 + len(part)])
                losses = torch.nn.functional.cross_entropy(logits, following, reduction="none")
                result.append(losses.numpy())
        return np.concatenate(result)


def new_cache() -> Any:
    """An empty one."""
    from transformers import DynamicCache

    return DynamicCache()


def _text_of(files: dict[str, bytes]) -> tuple[Tokenizer, tuple[str, str]]:
    """The runtime's own tokenizer, so that both read the same ids, and the halves of a turn."""
    from lcc.runtime.text.tokenizer import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        tokenizer = Tokenizer(folder)
        if not tokenizer.knows_text:
            raise LccError("the model has no tokenizer; wanted one that reads text")
        return tokenizer, halves(tokenizer)
