"""Which layers of a model an archive is of, which of them vote in a recall, and their programs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import fx

from lcc.ir.plan import Full
from lcc.ir.program import Program
from lcc.passes.graph import attribute
from lcc.passes.policies import EvictionPolicy
from lcc.passes.policies.entry_scores import SENTENCE
from lcc.passes.programs.archive import archive_program, knows_likelihoods, leave_program
from lcc.passes.programs.evict import Protection
from lcc.passes.programs.recall import (
    Attend,
    Choose,
    PutBack,
    Vote,
    attend_program,
    choose_program,
    put_back_program,
    vote_program,
)

if TYPE_CHECKING:
    from lcc.passes.programs.cycle import CycleLayer, MadePrograms

VOTERS = 4  # of the later half of the layers: enough, see docs/results/recall.md


def why_no_archive(
    policy: EvictionPolicy, layers: list[CycleLayer], sites: list[fx.Node]
) -> str | None:
    """Why what a policy evicts cannot go to an archive; None = it can."""
    full = [each for each in layers if isinstance(each.kind, Full)]
    if not policy.evicts:
        return f"policy {policy.name} evicts nothing"
    if not policy.agrees or SENTENCE not in policy.scores:
        return (
            f"policy {policy.name} keeps other tokens in each KV head, of which an archive would "
            "need rows of their own; wanted consensus"
        )
    if not full:
        return "no layer is full, and nothing is evicted"
    if any(each.window for each in full):
        return "some layers have windows of their own, larger than the budget"
    full_sites = [s for s, each in zip(sites, layers, strict=True) if isinstance(each.kind, Full)]
    if any(each is not None for site in full_sites for each in site.args[11:12]):
        return "attention has a bias by distance (ALiBi), which an archive does not know"
    return None


def voters(layers: list[CycleLayer]) -> list[int]:
    """The layers that vote: a few of the later half of the full ones, evenly spread."""
    full = [i for i, each in enumerate(layers) if isinstance(each.kind, Full)]
    half = full[len(full) // 2 :]
    count = min(VOTERS, len(half))
    return [half[place * len(half) // count] for place in range(count)]


def with_archive(
    made: MadePrograms, layers: list[CycleLayer], sites: list[fx.Node]
) -> list[CycleLayer]:
    """The layers with the programs that archive them and call back from there."""
    first = next(each for each in layers if isinstance(each.kind, Full))
    policy, cache = made.policy, made.cache
    sizes = Protection(cache.sink_size, cache.recent_size, policy.tail_size)
    shape = {"capacity": cache.capacity, "budget": cache.budget, "kv_heads": first.kv_heads}
    made.once(("leave",), lambda _: leave_program(policy, sizes, **shape))
    # Any policy may agree, and only `consensus` has the option.
    floor = getattr(policy.options, "recall_floor", 0.0) if knows_likelihoods(policy) else None
    choose = Choose(sizes, floor)
    made.once(("choose",), lambda _: choose_program(choose, **shape))
    voting = voters(layers)
    count = voting[0], sum(layers[i].kv_heads for i in voting)
    named = []
    for i, (layer, site) in enumerate(zip(layers, sites, strict=True)):
        if isinstance(layer.kind, Full):
            layer = _with_rows(made, layer, int(site.args[9]))
            if i in voting:
                layer = _with_vote(made, layer, site, count)
        named.append(layer)
    return named


def _with_rows(made: MadePrograms, layer: CycleLayer, rotation: int) -> CycleLayer:
    """The layer with the programs that write its rows and put them back."""
    turn, cache = made.turn(rotation), made.cache
    kind = (layer.kv_heads, layer.head_size, rotation, layer.shared)
    shape = {"kv_heads": layer.kv_heads, "head_size": layer.head_size, "capacity": cache.capacity}

    def archive(name: str) -> Program:
        return archive_program(name, turn, entry=layer.entry, **shape)

    def put_back(name: str) -> Program:
        module = PutBack(made.policy, turn, shared=layer.shared)
        return put_back_program(name, module, budget=cache.budget, **shape)

    return replace(
        layer,
        archive=made.once(("archive", *kind), archive),
        put_back=made.once(("put_back", *kind), put_back),
    )


def _with_vote(
    made: MadePrograms, layer: CycleLayer, site: fx.Node, count: tuple[int, int]
) -> CycleLayer:
    """The layer with the programs by which it votes."""
    turn, sink = made.turn(int(site.args[9])), (*site.args[10:], None)[0]
    sinks = None if sink is None else attribute(made.graph, sink)
    numbers = {"scale": site.args[6], "softcap": site.args[8], "sinks": sinks, "count": count}
    heads = {
        "query_heads": layer.query_heads,
        "kv_heads": layer.kv_heads,
        "head_size": layer.head_size,
    }
    kind = (*heads.values(), site.args[9], site.args[6], site.args[8], sink)

    def attend(name: str) -> Program:
        return attend_program(name, Attend(turn, **numbers), **heads)

    def vote(name: str) -> Program:
        return vote_program(name, Vote(turn, **numbers), **heads)

    return replace(
        layer,
        attend=made.once(("attend", *kind), attend),
        vote=made.once(("vote", *kind), vote),
    )
