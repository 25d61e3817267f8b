"""How many positions a model has a row for, where it looks them up in a table."""

from collections.abc import Iterator

from torch import fx

from lcc.passes.graph import ModelGraph, aten, reached_from, shape


def position_table(graph: ModelGraph) -> int | None:
    """Rows of the smallest table that a captured model reads at positions; None = there is none.

    Learned positions (GPT-2), or angles that the model computed beforehand: whatever is read
    beyond their end is an error of the engine, in the middle of a text.
    """
    positions = reached_from(graph.graph, [graph.placeholder("position_ids")])
    positions -= reached_from(graph.graph, [graph.placeholder("input_ids")])
    return min(_rows(graph, positions), default=None)


def _rows(graph: ModelGraph, positions: set[fx.Node]) -> Iterator[int]:
    for node in graph.calls(aten.embedding.default):
        if node.args[1] in positions:
            yield int(shape(node.args[0])[0])
    for target in (aten.index_select.default, aten.gather.default):
        for node in graph.calls(target):
            table, dim, index = node.args[:3]
            if index in positions and table not in positions:
                yield int(shape(table)[dim])
    for node in graph.calls(aten.index.Tensor):
        table, indices = node.args
        if table not in positions:
            yield from (
                int(shape(table)[dim]) for dim, index in enumerate(indices) if index in positions
            )
