"""How far a model moves when some of its layers see less: texts, walked again from a layer on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lcc.ir.plan import BlockSparse, Full, Kind
from lcc.passes.graph import ModelGraph, is_call, shape
from lcc.passes.programs.split import head_module, last_linear
from lcc.train.layer_states import attend, plain_arguments
from lcc.train.sparse_attention import attend_blocks, attend_window, sink_positions

ROWS = 256  # whose logits exist at once
Plan = tuple[Kind, ...]


@dataclass(frozen=True)
class Loss:
    """How far a plan is from the model as it is, over the scored tokens of all texts.

    divergence      nats a token: KL(model || plan) of the next token
    nll             negative log likelihood of the text, nats a token; its exponential is perplexity
    """

    divergence: float
    nll: float


class Meter:
    """Measures plans on texts. Layers below the first one that changed are not run again."""

    def __init__(self, graph: ModelGraph, texts: list[list[int]], skip: int) -> None:
        """Read the texts with every layer as it is.

        graph       after FindAttention
        texts       token ids
        skip        first tokens of a text that do not count, those that see everything anyway
        """
        linear = last_linear(graph)
        self.head = head_module(graph, linear)
        self.windows = [site.window for site in sites(graph)]
        self.skip = skip
        self.walks = [_Walk(graph, linear, torch.tensor([ids])) for ids in texts]
        self.dense: Plan = (Full(),) * len(self.windows)
        self.hidden = [walk.run_from(None, self.dense) for walk in self.walks]

    def base(self, plan: Plan) -> None:
        """Begin with this plan: those measured next are equal to it up to a layer."""
        for walk in self.walks:
            walk.run_from(None, plan)

    @torch.no_grad()
    def loss(self, plan: Plan, changed: int | None = None) -> Loss:
        """Of a plan that is the base up to layer `changed`; None = of any plan, the new base."""
        divergence = nll = 0.0
        count = 0
        for walk, dense in zip(self.walks, self.hidden, strict=True):
            hidden = walk.run_from(changed, plan)
            ids = walk.ids[0]
            for start in range(self.skip, len(ids) - 1, ROWS):
                end = min(start + ROWS, len(ids) - 1)
                wanted = self.head(dense[:, start:end])[0].float().log_softmax(-1)
                got = self.head(hidden[:, start:end])[0].float().log_softmax(-1)
                divergence += float((wanted.exp() * (wanted - got)).sum())
                nll -= float(got.gather(1, ids[start + 1 : end + 1, None]).sum())
                count += end - start
        return Loss(divergence / count, nll / count)


@dataclass(frozen=True)
class Site:
    """An attention layer: numbers that a key has in all heads, and the model's own window, or 0."""

    numbers: int
    window: int


def sites(graph: ModelGraph) -> list[Site]:
    """The attention layers of a graph after FindAttention, in order."""
    return [
        Site(math.prod(int(n) for n in shape(node.args[1])[2:]), int(node.args[4]))
        for node in _attentions(graph)
    ]


def _attentions(graph: ModelGraph) -> list[fx.Node]:
    return graph.calls(torch.ops.lcc.attention.default)


class _Walk(fx.Interpreter):
    """One text through the layers, from any of them on."""

    def __init__(self, graph: ModelGraph, linear: fx.Node, ids: Tensor) -> None:
        super().__init__(graph.module)
        self.ids, self.last = ids, linear.args[0]
        self.inputs = (ids, torch.arange(ids.shape[1])[None])
        self.nodes, self.sites = list(graph.graph.nodes), _attentions(graph)
        self.starts = {site: self.nodes.index(site) for site in self.sites}
        self.states: list[dict[fx.Node, Any]] = []  # values before each layer's attention
        last: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            last |= dict.fromkeys(node.all_input_nodes, node)
            if node in self.starts:  # it may want its query before rotation
                last |= dict.fromkeys(node.args[0].all_input_nodes, node)
        self.frees: dict[fx.Node, list[fx.Node]] = {}
        for used, node in last.items():
            self.frees.setdefault(node, []).append(used)

    @torch.no_grad()
    def run_from(self, layer: int | None, plan: Plan) -> Tensor:
        """Hidden states [1, n, h] below the LM head.

        layer       the first one whose kind is another than at the last run from the beginning;
                    None = begin, and remember what the layers begin with
        """
        self.plan, place = plan, 0
        if layer is None:
            self.states, self.env, self.args_iter = [], {}, iter(self.inputs)
        else:
            self.env, place = dict(self.states[layer]), self.starts[self.sites[layer]]
        for node in self.nodes[place:]:
            if layer is None and node in self.starts:
                self.states.append(dict(self.env))
            self.env[node] = self.run_node(node)
            if node is self.last:
                break
            for used in self.frees.get(node, ()):
                del self.env[used]
        hidden: Tensor = self.env[self.last]
        return hidden

    def run_node(self, node: fx.Node) -> Any:
        """Attention as the plan has it."""
        if node not in self.starts:
            return super().run_node(node)
        kind = self.plan[self.sites.index(node)]
        args, _ = self.fetch_args_kwargs_from_env(node)
        q, k, v, scale, window, softcap = plain_arguments(args, self.sites.index(node))
        if isinstance(kind, Full):
            return attend(q, k, v, scale, window, softcap)
        if isinstance(kind, BlockSparse):
            return attend_blocks(q, k, v, kind, scale, softcap)
        sink_q, turn = q, node.args[0]
        if is_call(turn, torch.ops.lcc.rotate.default):
            (x, cos, sin, interleaved), _ = self.fetch_args_kwargs_from_env(turn)
            rows = sink_positions(self.inputs[1][0], kind)
            sink_q = turn.target(x, cos[:, rows], sin[:, rows], interleaved)
        return attend_window(q, sink_q, k, v, kind, scale, softcap)
