"""One specialized graph -> the programs that hold the weights: the step and the LM head."""

import copy

import torch
from torch import Tensor, fx, nn

from lcc.config import HEAD_ROWS
from lcc.errors import LccError, PassError, first_cause
from lcc.ir.program import DECODE, HEAD, PREFILL_CHUNK, Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.graph import ModelGraph, aten, is_call, shape


class LMHead(nn.Module):
    """Logits of the last row, and the negative log likelihood of each row's next token.

    hidden       [n, h]     after the final norm
    next_tokens  [n] int64  the token that follows each row
    returns      logits [1, V] of the last row; nll [n] = -log softmax(logits)[next], so that [n, V]
                 never leaves the program (NuC of InfiniPot, arXiv 2410.01518)
    """

    def __init__(self, logits: fx.GraphModule) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, hidden: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        # squeeze, not [0]: an ONNX Gather would copy all [n, V]. log_softmax, not logsumexp: ONNX
        # Runtime's kernel for it is vectorised and threaded.
        logits = self.logits(hidden[None]).squeeze(0).float()  # [n, V]
        nll = -logits.log_softmax(dim=-1).gather(1, next_tokens[:, None])
        return logits[-1:], nll.squeeze(1)


def last_linear(graph: ModelGraph) -> fx.Node:
    """The projection to the vocabulary, below whatever scales or caps the logits."""
    node = graph.graph.output_node().args[0][0]
    while not is_call(node, aten.linear.default, aten.matmul.default, aten.mm.default):
        texts = [i for i in node.all_input_nodes if i.op == "call_function"]
        if node.op != "call_function" or len(texts) != 1 or shape(texts[0]) != shape(node):
            raise PassError(
                f"split_programs: the logits come from {node.name} ({node.target}), wanted a "
                "linear layer, perhaps scaled or capped"
            )
        node = texts[0]
    return node


def head_module(graph: ModelGraph, linear: fx.Node) -> fx.GraphModule:
    """Hidden [1, n, h] -> logits [1, n, V] as a graph of its own."""
    old = graph.graph.output_node().args[0][0]
    head = fx.Graph()
    copies = {linear.args[0]: head.placeholder("hidden")}
    order = [n for n in graph.graph.nodes if n.op in ("get_attr", "call_function")]
    needed = {old}
    for node in reversed(order):
        if node in needed and node is not linear.args[0]:
            needed.update(i for i in node.all_input_nodes if i is not linear.args[0])
    for node in order:
        if node in needed:
            copies[node] = head.node_copy(node, copies.__getitem__)
    head.output(copies[old])
    return fx.GraphModule(graph.module, head)


def split_programs(graph: ModelGraph, *, chunk_size: int, capacity: int) -> list[Program]:
    """Export the step (prefill_chunk and decode) and the LM head.

    The step gives hidden states [1, Q, h] in place of logits; the head turns rows of them into
    logits and negative log likelihoods. So the weights of the head lie in one program only, logits
    that nobody reads are not computed, and [chunk, vocabulary] never exists.

    Raises PassError when the logits do not come from a linear layer.
    """
    linear = last_linear(graph)
    head = LMHead(head_module(graph, linear))
    step = graph.copy()
    names = {n.name: n for n in step.graph.nodes}
    step.give([(Port("hidden", Role.HIDDEN), names[linear.args[0].name]), *step.results()[1:]])
    step.clean()
    try:
        return [
            _export_step(step, chunk_size=chunk_size, capacity=capacity),
            _export_head(head, shape(linear.args[0])[-1]),
        ]
    except LccError:
        raise
    except Exception as error:  # torch.export raises many types
        raise PassError(
            f"split_programs: torch.export failed ({first_cause(error)}): a size of the model "
            "depends on the length of a step in a way that lcc does not know"
        ) from error


def _export_step(step: ModelGraph, *, chunk_size: int, capacity: int) -> Program:
    tokens = "tokens", torch.export.Dim("tokens", min=1, max=chunk_size)
    rows = "rows", torch.export.Dim("rows", min=1, max=chunk_size)
    slots = "slots", torch.export.Dim("slots", min=2, max=capacity)
    example = min(chunk_size, 16) if chunk_size > 1 else 1
    full = step.calls(torch.ops.lcc.cached_attention.default)
    growing = {cache.name for site in full for cache in site.args[3:5]}
    inputs = []
    for port, node in zip(step.inputs, step.graph.find_nodes(op="placeholder"), strict=True):
        value, sizes = torch.zeros(shape_of(node, example), dtype=node.meta["val"].dtype), {}
        if port.role in (Role.TOKENS, Role.POSITIONS):
            value, sizes = torch.arange(example)[None], {1: tokens}
        elif port.role == Role.ROWS:
            value, sizes = torch.arange(example), {0: rows}
        elif node.name in growing:  # as many slots as the session has
            sizes = {2: slots}
        inputs.append(Input(port, value, sizes))
    caches: dict[tuple[Role, int | None], str] = {
        (port.role, port.layer): port.name
        for port in step.inputs
        if port.role in (Role.KEY, Role.VALUE, Role.STATE)
    }
    return export(
        copy.copy(step.module),
        (PREFILL_CHUNK, DECODE),
        inputs,
        step.outputs,
        {
            port.name: caches[port.role, port.layer]
            for port in step.outputs
            if (port.role, port.layer) in caches
        },
    )


def shape_of(node: fx.Node, length: int) -> tuple[int, ...]:
    """Shape of an example of an input, `length` for sizes that the call decides."""
    return tuple(size if isinstance(size, int) else length for size in shape(node))


def _export_head(head: LMHead, hidden_size: int) -> Program:
    rows = {0: ("rows", torch.export.Dim("rows", min=1, max=HEAD_ROWS))}
    return export(
        head,
        (HEAD,),
        [
            Input(Port("hidden", Role.HIDDEN), torch.zeros(8, hidden_size), rows),
            Input(Port("next_tokens", Role.TOKENS), torch.zeros(8, dtype=torch.int64), rows),
        ],
        [Port("logits", Role.LOGITS), Port("nll", Role.ENTRY_SCORE)],
    )
