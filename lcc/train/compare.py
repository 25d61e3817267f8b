"""How well heads find what will be wanted, beside scores that need no training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcc.passes.graph import ModelGraph
from lcc.train.examples import Example, Teacher
from lcc.train.labels import labels, overlap
from lcc.train.layer_states import LayerStates, visit_layers


@torch.no_grad()
def compare(
    graph: ModelGraph,
    examples: list[Example],
    heads: dict[str, nn.ModuleList],
    teacher: Teacher,
    device: str = "cpu",
) -> dict[str, float]:
    """Share of the highest tenth of labels among the highest tenth of scores, by who scores.

    heads       name -> heads of every layer; they and the graph are on `device`

    Means over examples, layers and KV heads: of these, and of what needs no training: knorm (the
    shorter key is worth more), keydiff (the key least like the mean), recency. Layers with a window
    shorter than the text are left out: they keep their newest entries, and need no heads.
    """
    found: dict[str, list[Tensor]] = {}
    for example in examples:

        def look(states: LayerStates, scored: int = example.scored) -> None:
            if 0 < states.window < scored:
                return
            wanted, keys = labels(states, scored, teacher), states.k[:scored]
            unit = functional.normalize(keys, dim=-1)
            anchor = functional.normalize(unit.mean(0), dim=-1)
            newest = torch.arange(scored, dtype=torch.float32, device=device)[:, None].expand(
                wanted.shape
            )
            own = {name: each[states.layer] for name, each in heads.items()}
            scores = {name: head(states.features[:scored]) for name, head in own.items()}
            scores |= {
                "knorm": -keys.norm(dim=-1),
                "keydiff": -(unit * anchor).sum(-1),
                "recency": newest,
            }
            for name, each in scores.items():
                found.setdefault(name, []).append(overlap(each, wanted).mean())

        visit_layers(graph, torch.tensor([example.ids]).to(device), look)
    return {name: float(torch.stack(values).mean()) for name, values in found.items()}
