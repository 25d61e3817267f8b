"""A captured model as a module that learns: its layers as a plan has them, texts side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from lcc.errors import ConfigError
from lcc.ir.plan import BlockSparse, Full, Kind, SinkWindow, positions_of
from lcc.passes.graph import ModelGraph, is_call
from lcc.passes.lift_state import recurrences
from lcc.passes.programs.split import head_module, last_linear
from lcc.passes.rotation import rotate as rotate_pairs
from lcc.train.documents import IGNORED
from lcc.train.layer_states import attend, plain_arguments
from lcc.train.recompute import recomputed
from lcc.train.sparse_attention import attend_blocks, attend_window, sink_positions

LOSS_ROWS = 2048  # tokens whose logits exist at once (ProLong's LOGIT_BLOCK_SIZE)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """`lcc::rotate`, which has no gradient of its own."""
    return rotate_pairs(x, cos.unsqueeze(2), sin.unsqueeze(2), interleaved)


class DocumentAttention(nn.Module):
    """`lcc::attention` of one layer, for texts that lie side by side and do not see each other."""

    def __init__(
        self, kind: Kind, scale: float, window: int, softcap: float, interleaved: bool
    ) -> None:
        super().__init__()
        self.kind, self.scale, self.window, self.softcap = kind, scale, window, softcap
        self.interleaved = interleaved

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: Sequence[int],
        before: Tensor | None = None,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
    ) -> Tensor:
        """Attention of each text over itself.

        q               [1, n, Hq, D]   rotated
        k, v            [1, n, Hkv, D]  k rotated
        lengths         tokens of each text; their sum is n
        before          q before rotation, where first tokens are met by another angle
        cos, sin        [1, n, R/2]     angles of q; a text's own begin at place 0
        returns         [1, n, Hq, D]
        """
        if isinstance(self.kind, Full):
            numbers = self.scale, self.window, self.softcap
            texts = zip(*(x.split(lengths, dim=1) for x in (q, k, v)), strict=True)
            return torch.cat([attend(a, b, c, *numbers) for a, b, c in texts], dim=1)
        if isinstance(self.kind, BlockSparse):
            texts = zip(*(x.split(lengths, dim=1) for x in (q, k, v)), strict=True)
            blocks = self.kind, self.scale, self.softcap
            return torch.cat([attend_blocks(a, b, c, *blocks) for a, b, c in texts], dim=1)
        sink_q = q
        if before is not None and cos is not None and sin is not None:
            rows = _sink_rows(lengths, self.kind, q.device)
            sink_q = rotate(before, cos[:, rows], sin[:, rows], self.interleaved)
        sparse = self.kind, self.scale, self.softcap
        parts = zip(*(x.split(lengths, dim=1) for x in (q, sink_q, k, v)), strict=True)
        return torch.cat([attend_window(a, b, c, d, *sparse) for a, b, c, d in parts], dim=1)


def _sink_rows(lengths: Sequence[int], kind: SinkWindow, device: torch.device) -> Tensor:
    """[n] where in the sequence the angle stands by which a query meets its text's first tokens."""
    rows, start = [], 0
    for length in lengths:
        rows.append(start + sink_positions(torch.arange(length, device=device), kind))
        start += length
    return torch.cat(rows)


class Part(nn.Module):
    """A stretch of a graph; keeps its inputs only, and runs again when gradients are wanted.

    inputs, outputs     names of values
    """

    def __init__(self, module: fx.GraphModule, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.module, self.inputs, self.outputs = module, inputs, outputs

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """See the class."""
        results: tuple[Any, ...] = recomputed(self.module, *values)
        return results


class HybridModel(nn.Module):
    """The weights of a captured model, and its loss over texts that lie side by side.

    layers      parts of the model that can be sharded, each from one attention to the next; what
                comes before the first attention and after the last is not among them, because an
                embedding may be the LM head, too
    """

    def __init__(self, graph: ModelGraph, plan: tuple[Kind, ...]) -> None:
        """`graph`: after FindAttention; the weights stay the model's own.

        Raises:
            ConfigError: the plan is for another number of layers, or makes a layer sparse that has
                a window of its own; a layer has sinks or a bias; there are experts or recurrent
                layers.
        """
        super().__init__()
        self.head = head_module(graph, last_linear(graph))
        parts = _split(_documents(graph.copy(), plan))
        self.layers = parts[1:-1]
        self.parts = nn.ModuleList(parts)
        for tensor in self.parameters():
            tensor.requires_grad_(True)

    @contextlib.contextmanager
    def dense(self) -> Iterator[None]:
        """Every layer full, for a while."""
        sites = [each for each in self.modules() if isinstance(each, DocumentAttention)]
        kinds = [site.kind for site in sites]
        for site in sites:
            site.kind = Full()
        try:
            yield
        finally:
            for site, kind in zip(sites, kinds, strict=True):
                site.kind = kind

    def hidden(self, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Hidden states [1, n, h] below the LM head, of ids [1, n]."""
        places = [torch.arange(length, device=ids.device) for length in lengths]
        positions = torch.cat(places)[None]
        values = {"input_ids": ids, "position_ids": positions, "lengths": tuple(lengths)}
        for part in self.parts:
            assert isinstance(part, Part)
            results = part(*(values[name] for name in part.inputs))
            values |= zip(part.outputs, results, strict=True)
        states: Tensor = results[0]
        return states

    def forward(self, ids: Tensor, labels: Tensor, lengths: Sequence[int]) -> Tensor:
        """Sum of the cross entropies of all labels; no more than LOSS_ROWS logits at once.

        ids         [1, n] int64
        labels      [n] int64, what each token should be followed by; IGNORED = it does not matter
        lengths     tokens of each text; their sum is n
        """
        hidden = self.hidden(ids, lengths)
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, labels.shape[0], LOSS_ROWS):
            rows = slice(start, start + LOSS_ROWS)
            if (labels[rows] != IGNORED).any():
                total = total + recomputed(self._loss, hidden[:, rows], labels[rows])
        return total

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(hidden)[0].float()
        return functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")


def _documents(graph: ModelGraph, plan: tuple[Kind, ...]) -> ModelGraph:
    """Replace operators by modules that have gradients, and logits by what is below them."""
    sites = graph.calls(torch.ops.lcc.attention.default)
    if len(sites) != len(plan):
        raise ConfigError(f"plan: {len(plan)} layers, the model has {len(sites)}")
    if graph.calls(torch.ops.lcc.experts.default):
        raise ConfigError(
            "the model is a mixture of experts, which lcc compiles but does not train"
        )
    if recurrences(graph):
        raise ConfigError("the model has recurrent layers, which lcc compiles but does not train")
    with graph.graph.inserting_after(graph.placeholder("position_ids")):
        lengths = graph.graph.placeholder("lengths")
    for node in graph.calls(torch.ops.lcc.rotate.default):
        node.target = rotate
    for i, (site, kind) in enumerate(zip(sites, plan, strict=True)):
        q, k, v, scale, window, softcap = plain_arguments(site.args, i)
        if window and not isinstance(kind, Full):
            raise ConfigError(
                f"plan: layer {i} has a window of its own ({window} tokens), which it keeps; "
                "wanted full"
            )
        more, interleaved = (), False
        moves = isinstance(kind, SinkWindow) and positions_of(plan) == "contiguous"
        if moves and is_call(q, rotate):
            *more, interleaved = q.args
        name = f"attention_{i}"
        attention = DocumentAttention(kind, scale, window, softcap, interleaved)
        graph.module.add_submodule(name, attention)
        with graph.graph.inserting_before(site):
            new = graph.graph.call_module(name, (q, k, v, lengths, *more))
        site.replace_all_uses_with(new)
        graph.graph.erase_node(site)
    linear = last_linear(graph)
    graph.graph.output_node().args = ((linear.args[0],),)
    graph.clean()
    return graph


def _split(graph: ModelGraph) -> list[Part]:
    """Cut behind every attention: little more than the residual stream crosses a cut."""
    stretches: list[list[fx.Node]] = [[]]
    for node in graph.graph.nodes:
        if node.op in ("call_function", "call_module"):
            stretches[-1].append(node)
            if node.op == "call_module":
                stretches.append([])
    return [_part(graph, nodes) for nodes in stretches]


def _part(graph: ModelGraph, nodes: list[fx.Node]) -> Part:
    """These nodes as a graph of their own, with the weights that they use."""
    inside, part = set(nodes), fx.Graph()
    sources = dict.fromkeys(i for node in nodes for i in node.all_input_nodes if i not in inside)
    copies = {i: part.placeholder(i.name) for i in sources if i.op != "get_attr"}
    inputs = [node.name for node in copies]
    copies |= {i: part.node_copy(i) for i in sources if i.op == "get_attr"}
    for node in nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
    outputs = [node for node in nodes if any(user not in inside for user in node.users)]
    part.output(tuple(copies[node] for node in outputs))
    return Part(fx.GraphModule(graph.module, part), inputs, [node.name for node in outputs])
