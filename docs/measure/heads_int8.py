"""What retaining heads lose in 8 bits: weights rounded, a scale for each row of a matrix.

python docs/measure/heads_int8.py smollm2 heads.safetensors DATA.jsonl [--out int8.safetensors]

Held-out texts as `lcc train heads --validation 0.03` holds them out. --out writes the rounded heads
as a file like any other (float16 numbers, 255 different ones a row), to be compiled and asked.
"""

import argparse
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from lcc.capture.export import capture
from lcc.passes.find_attention import FindAttention
from lcc.sources.heads import RetainingHeads, load_heads, save_heads
from lcc.sources.models import encoder, load_model
from lcc.train.compare import compare
from lcc.train.examples import read_examples, split
from lcc.train.labels import overlap
from lcc.train.layer_states import LayerStates, visit_layers
from lcc.train.trainer import Head


def rounded(weight: Tensor) -> Tensor:
    """[rows, columns] to the nearest of 255 numbers of its row."""
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return (weight / scale).round() * scale


def modules(heads: RetainingHeads) -> nn.ModuleList:
    """The heads, to be called."""
    made = []
    for first, second in heads.layers.values():
        head = Head(first.shape[1], first.shape[0], second.shape[0], heads.page.activation)
        head.first.weight.data, head.second.weight.data = first, second
        made.append(head)
    return nn.ModuleList(made)


@torch.no_grad()
def main() -> None:
    """Overlap with the labels of both, and with each other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("heads", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    loaded, heads = load_model(options.model), load_heads(options.heads)
    graph = FindAttention(table_size=1)(capture(loaded.module)).graph
    layers = {i: (rounded(a), rounded(b)) for i, (a, b) in heads.layers.items()}
    page = msgspec.structs.replace(heads.page, trained_on=f"{heads.page.trained_on}; in 8 bits")
    eight = RetainingHeads(page, layers)
    if options.out:
        save_heads(options.out, eight)
    full, few = modules(heads), modules(eight)
    examples = read_examples(
        options.data, encoder(loaded), teacher="repeat", length=1024, answer_size=128
    )
    held = split(examples, 0.03)[1]
    agreed: list[Tensor] = []

    def look(states: LayerStates) -> None:
        features = states.features[: example.scored]
        both = (few[states.layer](features), full[states.layer](features))
        agreed.append(overlap(*both).mean())

    for example in held:
        visit_layers(graph, torch.tensor([example.ids[: example.scored]]), look)
    print(f"of the highest tenth, the same in 8 bits: {float(torch.stack(agreed).mean()):.3f}")
    found = compare(graph, held, {"heads": full, "heads in 8 bits": few}, "repeat")
    for name in ("heads", "heads in 8 bits"):
        print(f"overlap with the labels, {name}: {found[name]:.4f}")


if __name__ == "__main__":
    main()
