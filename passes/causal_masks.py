"""Tell what a mask means by computing it: causal, or causal with a window, or a refusal."""

import torch
from torch import fx

from lcc.errors import PassError
from lcc.passes.graph import ModelGraph, ancestors, attribute, evaluate
from lcc.passes.position_table import position_table

SMALL_LENGTH = 37
TRIED = 2048, 4096  # a mask is computed for a text as long as the cache, within these
LARGEST_LENGTH = 16384
NO_NUMBER = 1 << 30  # ends of slices, "infinity"


def _evaluate_mask(graph: ModelGraph, mask: fx.Node, length: int) -> torch.Tensor:
    """The mask as a boolean [length, length] for a text in consecutive positions."""
    given = {}
    for node in graph.graph.find_nodes(op="placeholder"):
        if node.name == "position_ids":
            given[node] = torch.arange(length)[None]
        elif node.name == "input_ids":
            given[node] = torch.zeros(1, length, dtype=torch.int64)
    value = evaluate(graph, mask, given)
    allowed = value if value.dtype == torch.bool else value > -1e4
    if allowed.shape[-2:] != (length, length) or allowed.numel() != length * length:
        raise PassError(
            f"find_attention: mask {mask.name} has shape {list(allowed.shape)} for {length} "
            f"tokens, wanted [1, 1, {length}, {length}]: masks per head are not supported"
        )
    if value.dtype != torch.bool and not torch.all(value[allowed] == 0):
        raise PassError(
            f"find_attention: mask {mask.name} adds numbers besides 0 to visible scores (a bias "
            "by distance, as in ALiBi); lcc needs positions in the rotation or the embedding"
        )
    return allowed.reshape(length, length)


def window_of(graph: ModelGraph, mask: fx.Node | None, capacity: int) -> int:
    """Keys a query sees under a mask, itself included; 0 = all that came before.

    The mask is computed for a short text, then for one longer than every whole number that occurs
    in its formula, so that a window of any size shows; and for one longer than the cache, where a
    formula hides its numbers. No text is longer than the tables that the mask is read from.

    capacity    of the cache, in tokens; of a larger one than 4,096 so many are tried

    Raises PassError for any other pattern, and for numbers too large to try.
    """
    if mask is None:
        return 0
    tried = min(max(capacity, TRIED[0]), TRIED[1]) + 1
    tables = [
        tuple(attribute(graph, node).shape) for node in ancestors(mask) if node.op == "get_attr"
    ]
    ends = [position_table(graph), *(table[-1] for table in tables if len(table) > 1)]
    end = min((end for end in ends if end is not None and end > 1), default=NO_NUMBER)
    numbers = {
        abs(argument)
        for node in ancestors(mask)
        for argument in node.args
        if isinstance(argument, int) and not isinstance(argument, bool)
    }
    numbers |= {
        int(number)
        for node in ancestors(mask)
        if node.op == "get_attr"
        for number in attribute(graph, node).double().abs().flatten()[:16].tolist()
        if number.is_integer()
    }
    longest = max((n for n in numbers if n < NO_NUMBER), default=0)
    if longest > LARGEST_LENGTH:
        raise PassError(
            f"find_attention: mask {mask.name} is made with the number {longest}; a window of more "
            f"than {LARGEST_LENGTH} tokens is not supported"
        )
    for length in sorted({SMALL_LENGTH, max(SMALL_LENGTH, longest + 3, tried)}):
        allowed = _evaluate_mask(graph, mask, min(length, end))
    size = len(allowed)
    window = int(allowed[-1].sum())
    query, key = torch.arange(size)[:, None], torch.arange(size)[None, :]
    expected = (key <= query) & (query - key < window)
    if not torch.equal(allowed, expected):
        row = int((allowed != expected).any(dim=1).nonzero()[0])
        raise PassError(
            f"find_attention: mask {mask.name} is neither causal nor a causal window: token {row} "
            f"sees {int(allowed[row].sum())} keys, wanted the last {min(row + 1, window)}"
        )
    return 0 if window == size else window
