"""transformers: eager PyTorch, float32, every entry kept (DynamicCache)."""

import contextlib
from pathlib import Path
from typing import Any

from lcc.measure.bench.engines.checkpoint import save_checkpoint
from lcc.measure.bench.measure import OnToken, Request
from lcc.measure.bench.process import Progress


def prepare(model: str, folder: Path, precision: str, report: Progress) -> Path:
    """A folder of transformers."""
    return save_checkpoint(model, folder, report)


class Eager:
    """A model of transformers, and its cache of the last prompt."""

    def __init__(self, request: Request) -> None:
        """Load the folder."""
        import torch
        import transformers

        torch.set_num_threads(request.threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            request.source, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        ).eval()
        self.cache: Any = None

    def reading(self, tokens: int) -> contextlib.AbstractContextManager[object]:
        """What is done to the model while it reads so many tokens."""
        return contextlib.nullcontext()

    def generate(self, ids: list[int], count: int, on_token: OnToken) -> None:
        """Read in one go, then step by step.

        The places of new tokens are given, for after a press the cache is shorter than the text.
        """
        import torch
        import transformers

        with torch.inference_mode():
            self.cache = transformers.DynamicCache(config=self.model.config)
            tokens = torch.tensor([ids])
            with self.reading(len(ids)):
                logits = self.model(
                    tokens,
                    past_key_values=self.cache,
                    logits_to_keep=1,
                    cache_position=torch.arange(len(ids)),  # for presses; transformers needs none
                ).logits
            for place in range(len(ids), len(ids) + count):
                token = int(logits[0, -1].argmax())
                on_token(token)
                if place + 1 < len(ids) + count:
                    logits = self.model(
                        torch.tensor([[token]]),
                        position_ids=torch.tensor([[place]]),
                        past_key_values=self.cache,
                    ).logits

    def facts(self) -> dict[str, Any]:
        """Of the cache's tensors."""
        tensors = [each for layer in self.cache.layers for each in (layer.keys, layer.values)]
        return {"kv_bytes": sum(tensor.nbytes for tensor in tensors)}


load = Eager
