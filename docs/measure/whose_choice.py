"""Why policy locret finds little: the scores of its heads, or that each chooses for itself?

python docs/measure/whose_choice.py smollm2 heads.safetensors ESSAYS [--budget 1024] [--texts 5]

Texts of 4K tokens are read whole, then evicted once to the budget, in eager PyTorch, and their
questions asked (four keys of a text each). Scores: of the heads, and those that the heads were
taught, which look at the text being repeated. Choice: the highest of each KV head (locret), or
whole sentences by the mean of exp(score) over all heads and layers (consensus with heads).
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pyramid import Reader
from retaining import asked, texts
from torch import Tensor

from lcc.capture.export import capture
from lcc.measure.evaluate.haystack import read_haystack
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.sources.heads import load_heads
from lcc.sources.models import load_model
from lcc.sources.text_facts import sentence_ends
from lcc.train.examples import REPEAT
from lcc.train.labels import labels
from lcc.train.layer_states import visit_layers

SINKS, RECENT, NEVER = 4, 64, 1 << 30
LONGEST = 64  # tokens of a sentence


def taught(graph: ModelGraph, ids: list[int], request: list[int]) -> Tensor:
    """[L, Hkv, n]: what the heads should have said, of the model repeating the text."""
    found: list[Tensor] = []
    whole = torch.tensor([[*ids, *request, *ids]])
    visit_layers(graph, whole, lambda s: found.append(labels(s, len(ids), "repeat").T))
    return torch.stack(found)


def choices(scores: Tensor, sentence: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Ranks [L, Hkv, n] by who chooses; `sentence` [n]: a number for each."""
    yield "each head, tokens", scores
    expected = scores.exp().mean((0, 1))
    _, index = sentence.unique_consecutive(return_inverse=True)
    sums = torch.zeros(int(index.max()) + 1).index_add(0, index, expected)
    yield "all heads, sentences", (sums / index.bincount())[index].expand_as(scores)


def sentence_starts(ids: list[int], ends: np.ndarray) -> Tensor:
    """[n] int64: the token position where the sentence of each token begins."""
    starts, begin = [], 0
    for position in range(len(ids)):
        if position and (ends[ids[position - 1]] or position - begin >= LONGEST):
            begin = position
        starts.append(begin)
    return torch.tensor(starts)


def main() -> None:
    """One row per scores and choice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("heads", type=Path)
    parser.add_argument("haystack", type=Path)
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--texts", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    loaded, heads = load_model(options.model), load_heads(options.heads)
    graph = FindAttention(table_size=8192)(capture(loaded.module)).graph
    with tempfile.TemporaryDirectory() as folder:
        for name, content in loaded.files.items():
            Path(folder, name).write_bytes(content)
        tokenizer = Tokenizer(folder)
    ends = sentence_ends(loaded.files, loaded.module.config.vocab_size)
    reader = Reader(graph, heads, [NEVER] * len(heads.layers), NEVER)
    haystack, found = read_haystack(options.haystack), {}
    samples = list(texts(tokenizer.encode, "multikey", options.tokens, haystack))
    for sample in samples[: options.texts]:
        ids, questions = tokenizer.encode(sample.context), asked(sample, "multikey")
        reader.reset()
        reader.feed(ids)
        held = [cache.parts for cache in reader.layers]
        starts = sentence_starts(ids, ends)
        scores = {
            "heads": torch.stack([parts[2] for parts in held]),
            "taught": taught(graph, ids, tokenizer.encode(REPEAT)),
        }
        ranks = {
            f"{name}: {who}": rank
            for name, each in scores.items()
            for who, rank in choices(each, starts)
        }
        for name, rank in {"everything kept": None, **ranks}.items():
            right = 0
            for question, prefix, answer in questions:
                for i, (cache, parts) in enumerate(zip(reader.layers, held, strict=True)):
                    cache.parts = parts
                    if rank is not None:
                        of_layer = rank[i].clone()
                        of_layer[:, :SINKS] = of_layer[:, -RECENT:] = torch.inf
                        slots = of_layer.topk(options.budget).indices.sort().values
                        cache.parts = tuple(
                            x.gather(
                                1,
                                slots.reshape(*slots.shape, *[1] * (x.ndim - 2)).expand(
                                    *slots.shape, *x.shape[2:]
                                ),
                            )
                            for x in parts
                        )
                written = [reader.feed(tokenizer.encode(f"\n{question} {prefix}"))]
                for _ in range(11):
                    written.append(reader.feed(written[-1:]))
                right += answer in tokenizer.decode(written)
            before = found.get(name, (0, 0))
            found[name] = before[0] + right, before[1] + len(questions)
        print({name: f"{a} of {b}" for name, (a, b) in found.items()}, flush=True)


if __name__ == "__main__":
    main()
