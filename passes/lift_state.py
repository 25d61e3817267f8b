"""What recurrent layers carry from token to token becomes inputs and outputs."""

from operator import getitem

import torch
from torch import fx

from lcc.errors import PassError
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, is_call

OPERATORS = (torch.ops.lcc.causal_conv.default, torch.ops.lcc.linear_attention.default)


class LiftState(Pass):
    """States that a text begins with become states that a step is given and gives back.

        before   zeros -> lcc.linear_attention(q, k, v, decay, beta, zeros, scale) -> out, state
        after    lcc.linear_attention(q, k, v, decay, beta, state_<i>, scale) -> out, state_<i>_out

    New inputs and outputs, behind those there are: state_<i> and state_<i>_out [1, ..] float32, of
    the recurrences in their order. A layer may have several.

    Requires    LiftKVCache has run.
    """

    required = False

    def rewrite(self, graph: ModelGraph) -> int:
        """Add the states; return how many there are."""
        sites = recurrences(graph)
        states: list[tuple[Port, fx.Node]] = []
        last = graph.graph.find_nodes(op="placeholder")[-1]
        for i, site in enumerate(sites):
            place = state_argument(site)
            given = site.args[place].meta["val"]
            if given.dtype != torch.float32:
                raise PassError(f"lift_state: {site.name} carries {given.dtype}, wanted float32")
            last = graph.add_input(Port(f"state_{i}", Role.STATE, i), given, after=last)
            site.update_arg(place, last)
            states.append((Port(f"state_{i}_out", Role.STATE, i), _given_back(graph, site)))
        if sites:
            graph.give([*graph.results(), *states])
            graph.clean()
        return len(sites)


def recurrences(graph: ModelGraph) -> list[fx.Node]:
    """Every recurrence of a model, in order."""
    return [node for node in graph.graph.nodes if is_call(node, *OPERATORS)]


def state_argument(site: fx.Node) -> int:
    """Place of the initial state among a recurrence's arguments."""
    return 3 if is_call(site, torch.ops.lcc.causal_conv.default) else 5


def _given_back(graph: ModelGraph, site: fx.Node) -> fx.Node:
    """The state behind the last token."""
    for user in site.users:
        if is_call(user, getitem) and user.args[1] == 1:
            return user
    with graph.graph.inserting_after(site):
        node = graph.graph.call_function(getitem, (site, 1))
    node.meta["val"] = site.meta["val"][1]
    return node
