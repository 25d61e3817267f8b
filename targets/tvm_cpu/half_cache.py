"""Attention that reads and writes a cache in float16 where it lies, without a copy in float32."""

import copy
from dataclasses import replace

import torch
from torch import fx

from lcc.ir.program import Program, with_graph
from lcc.passes.programs.base import ProgramPass

# operator -> place of the keys among its arguments, the values behind them
CACHED = {
    "lcc.cached_attention.default": 3,
    "lcc.cached_sink_window.default": 4,
    "lcc.cached_block_sparse.default": 3,
}


class AttendInHalf(ProgramPass):
    """Takes the casts of `HalfCache` away that are around attention.

    before   key (half) -> float -> attention -> half -> key_out
    after    key (half) -> attention -> key_out

    Programs that move entries keep theirs.
    """

    def rewrite(self, program: Program) -> list[Program] | None:
        """The same program; None where no attention reads halves."""
        if not any(map(_of_halves, program.exported.graph.nodes)):
            return None
        old = program.exported
        graph, signature = copy.deepcopy(old.graph), copy.deepcopy(old.graph_signature)
        for node in filter(_of_halves, list(graph.nodes)):
            first = CACHED[str(node.target)]
            for place in (first, first + 1):
                node.update_arg(place, node.args[place].args[0])
        output = graph.output_node()
        results = list(output.args[0])
        for i, result in enumerate(results):
            if isinstance(result, fx.Node) and _is_half_of_attention(result):
                results[i] = result.args[0]
                results[i].meta["val"] = result.meta["val"]
                signature.output_specs[i].arg.name = results[i].name
        output.args = (tuple(results),)
        graph.eliminate_dead_code()
        return [replace(program, exported=with_graph(old, graph, signature))]


def _is_cast(node: object, dtype: torch.dtype) -> bool:
    return (
        isinstance(node, fx.Node)
        and str(node.target) == "aten._to_copy.default"
        and node.kwargs.get("dtype") == dtype
    )


def _of_halves(node: fx.Node) -> bool:
    """Whether it is an attention whose cache is widened from an input in float16."""
    place = CACHED.get(str(node.target))
    if place is None or not _is_cast(node.args[place], torch.float32):
        return False
    (source,) = node.args[place].args  # type: ignore[union-attr]
    return source.op == "placeholder" and source.meta["val"].dtype == torch.float16


def _is_half_of_attention(node: fx.Node) -> bool:
    """Whether it is a cache as attention leaves it, narrowed to float16."""
    if not _is_cast(node, torch.float16):
        return False
    source = node.args[0]
    return str(getattr(source, "target", "")) == "<built-in function getitem>" and (
        str(source.args[0].target) in CACHED
    )
