"""Would budgets that differ by layer find more? Policy locret in eager PyTorch, layer by layer.

python docs/measure/pyramid.py smollm2 heads.safetensors ESSAYS [--budget 512] [--task multikey]

Every layer has a cache of its own, positions following its own slots, and evicts when it holds its
budget and `room` entries. The mean of the budgets is the same in all rows; the first layer's is the
mean times the row's number, and they go on in a straight line to the last layer's, so that 1.0 is
what the runtime does. (Not quite: the newest 64 survive every cycle, the last one too.)
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from retaining import asked, texts
from torch import Tensor, fx
from torch.nn import functional

from lcc.capture.export import capture
from lcc.config import PolicyConfig
from lcc.measure.evaluate.haystack import read_haystack
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.insert_retaining_heads import ACTIVATIONS
from lcc.passes.policies import Entries, make_policy
from lcc.passes.rotation import rotate
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.sources.heads import RetainingHeads, load_heads
from lcc.sources.models import load_model

CHUNK, SINKS, RECENT = 256, 4, 64
STEEPNESS = (1.0, 1.5, 0.5)


class LayerCache:
    """Unrotated keys, values and scores [Hkv, n, ...] of one layer."""

    def __init__(self, budget: int, room: int) -> None:
        self.budget, self.room = budget, room
        self.parts: tuple[Tensor, Tensor, Tensor] | None = None

    def append(self, key: Tensor, value: Tensor, score: Tensor) -> None:
        """Add new entries."""
        new = (key, value, score)
        old = self.parts
        if old is not None:
            new = tuple(torch.cat(pair, dim=1) for pair in zip(old, new, strict=True))
        self.parts = new

    def evict(self, policy: Any) -> None:
        """Keep the budget, where there is more and no room for a chunk."""
        key, value, score = self.parts
        n = score.shape[1]
        if n + CHUNK <= self.budget + self.room:
            return
        slot = torch.arange(n)
        protected = (slot < SINKS) | (slot >= n - RECENT)
        valid, scores = torch.ones(n, dtype=torch.bool), {"retaining": score}
        entries = Entries(key, value, slot, valid, protected, self.budget, scores)
        kept = policy.select(entries)
        rows = kept[:, :, None].expand(-1, -1, key.shape[2])
        self.parts = key.gather(1, rows), value.gather(1, rows), score.gather(1, kept)


class Reader(fx.Interpreter):
    """The captured model over caches of different sizes."""

    def __init__(self, graph: ModelGraph, heads: RetainingHeads, budgets: list[int], room: int):
        super().__init__(graph.module)
        self.rotations, self.heads = graph.rotations, heads
        self.policy = make_policy(PolicyConfig(name="locret", options={"score_span": 1}))
        self.budgets, self.room = budgets, room
        self.reset()

    def reset(self) -> None:
        """Forget what was read."""
        self.layers = [LayerCache(budget, self.room) for budget in self.budgets]

    def call_function(self, target: Any, args: tuple, kwargs: dict) -> Any:
        """Rotation waits until the slots are known; attention is over the layer's own cache."""
        if target is torch.ops.lcc.rotate.default:
            return args[0]
        if target is not torch.ops.lcc.attention.default:
            return super().call_function(target, args, kwargs)
        q, k, v, scale, _, _, index = args
        cache, (first, second) = self.layers[self.layer], self.heads.layers[self.layer]
        activation, options = ACTIVATIONS[self.heads.page.activation]
        features = torch.cat([x[0].flatten(1) for x in (q, k, v)], dim=1)
        score = activation(features @ first.T, **options) @ second.T
        cache.append(k[0].transpose(0, 1), v[0].transpose(0, 1), score.T)
        self.layer += 1
        key, value, _ = cache.parts
        n, new, table = key.shape[1], q.shape[1], self.rotations[index]
        cos, sin = table.cos[:n], table.sin[:n]
        key = rotate(key, cos, sin, table.interleaved)
        query = rotate(q[0].transpose(0, 1), cos[n - new :], sin[n - new :], table.interleaved)
        seen = torch.ones(new, n, dtype=torch.bool).tril(n - new)
        out = functional.scaled_dot_product_attention(
            query[None], key[None], value[None], attn_mask=seen, scale=scale, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous()

    @torch.no_grad()
    def feed(self, ids: list[int]) -> int:
        """Read; returns the likeliest next token."""
        for start in range(0, len(ids), CHUNK):
            for cache in self.layers:
                if cache.parts is not None:
                    cache.evict(self.policy)
            part, self.layer = torch.tensor([ids[start : start + CHUNK]]), 0
            logits = self.run(part, torch.arange(part.shape[1])[None])[0]
        return int(logits[0, -1].argmax())


def budgets_of(layers: int, mean: int, steepness: float) -> list[int]:
    """A straight line from the first layer's budget to the last one's."""
    line = torch.linspace(steepness, 2 - steepness, layers) * mean
    return [round(x) for x in line.tolist()]


def main() -> None:
    """One row per steepness."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("heads", type=Path)
    parser.add_argument("haystack", type=Path)
    parser.add_argument("--budget", type=int, default=512)
    parser.add_argument("--task", default="multikey")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loaded = load_model(options.model)
    room = 2048 - options.budget
    graph = FindAttention(table_size=4096)(capture(loaded.module)).graph
    heads, sentences = load_heads(options.heads), read_haystack(options.haystack)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in loaded.files.items():
            Path(folder, name).write_bytes(content)
        tokenizer = Tokenizer(folder)
    for steepness in STEEPNESS:
        reader = Reader(
            graph, heads, budgets_of(len(heads.layers), options.budget, steepness), room
        )
        right = total = 0
        for sample in texts(tokenizer.encode, options.task, options.tokens, sentences):
            reader.reset()
            reader.feed(tokenizer.encode(sample.context))
            held = [cache.parts for cache in reader.layers]
            for question, prefix, answer in asked(sample, options.task):
                for cache, parts in zip(reader.layers, held, strict=True):
                    cache.parts = parts
                written = [reader.feed(tokenizer.encode(f"\n{question} {prefix}"))]
                for _ in range(11):
                    written.append(reader.feed(written[-1:]))
                right += answer in tokenizer.decode(written)
                total += 1
        print(f"first layer {steepness:.2f} of the mean: found {right} of {total}", flush=True)


if __name__ == "__main__":
    main()
