"""One score a token from the retaining heads of all layers, for policies that rank all alike."""

from torch import fx

from lcc.errors import ConfigError, PassError
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, aten, emit

EXPECTED = Port("expected", Role.ENTRY_SCORE)
HIGHEST = 80.0  # the exponential of 88 is the largest float32


class AverageRetainingHeads(Pass):
    """Retaining scores are logarithms of expected attention; average it over all KV heads.

        before   retaining_0 [Q, Hkv], retaining_1, ... are outputs
        after    expected [Q] = mean of exp(min(score, 80)) over the heads of all layers

    Requires    InsertRetainingHeads has run, and HybridLayers where there is a plan.
    Ensures     one entry score is left among the outputs.
    """

    def requires(self, graph: ModelGraph) -> None:
        """There are scores to average: a plan leaves some layer full."""
        if not any(port.role == Role.ENTRY_SCORE for port in graph.outputs):
            raise ConfigError(
                "heads were given, the plan leaves no layer full that they could score"
            )

    def rewrite(self, graph: ModelGraph) -> int:
        """Average them; return over how many layers."""
        nodes: list[fx.Node] = []
        results = []
        for port, node in graph.results():
            if port.role == Role.ENTRY_SCORE:
                nodes.append(node)
            else:
                results.append((port, node))
        with graph.graph.inserting_before(graph.graph.output_node()):
            joined = emit(graph.graph, aten.cat.default, nodes, 1)
            capped = emit(graph.graph, aten.clamp.default, joined, None, HIGHEST)
            expected = emit(graph.graph, aten.exp.default, capped)
            mean = emit(graph.graph, aten.mean.dim, expected, [1])
        graph.give([results[0], (EXPECTED, mean), *results[1:]])
        return len(nodes)

    def ensures(self, graph: ModelGraph) -> None:
        """One entry score is left."""
        scores = [port for port in graph.outputs if port.role == Role.ENTRY_SCORE]
        if scores != [EXPECTED]:
            raise PassError(f"average_retaining_heads: {len(scores)} scores are left, wanted 1")
