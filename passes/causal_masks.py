"""Tell what masks mean by computing them: causal, a causal window, a bias by slot, or a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from lcc.errors import PassError
from lcc.passes.attention_scores import HIDDEN, Bias
from lcc.passes.graph import ModelGraph, ancestors, attribute, evaluate
from lcc.passes.position_table import position_table

SMALL_LENGTH = 37
TRIED = 2048, 4096  # a mask is computed for a text as long as the cache, within these
LARGEST_LENGTH = 16384
NO_NUMBER = 1 << 30  # ends of slices, "infinity"
LINEAR = 0.02  # of a slope: biases that were rounded to bfloat16 once are off by less


@dataclass(frozen=True)
class Mask:
    """What the masks of an attention let a query see.

    window  keys, the query's own included; 0 = all that came before
    bias    [Hq, S] float32, added to every score of the key in a slot (ALiBi); None = nothing. Only
            differences count: what all keys of a query have in common changes nothing
    """

    window: int
    bias: Tensor | None = None


def read_mask(graph: ModelGraph, biases: Sequence[Bias], capacity: int, heads: int) -> Mask:
    """What the biases of an attention let a query see.

    Masks are computed for a short text, then for one longer than every whole number that occurs in
    their formula, so that a window of any size shows; and for one longer than the cache, where a
    formula hides its numbers. No text is longer than the tables that a mask is read from. What
    would show only behind the cache never does: a window of so many tokens is none.

    capacity    of the cache, in tokens; of a larger one than 4,096 so many are tried
    heads       query heads

    Raises PassError for any other pattern, and for numbers too large to try.
    """
    if not biases:
        return Mask(0)
    small, table = _seen(graph, biases, SMALL_LENGTH, heads)
    longest = _length_that_shows(graph, biases, capacity)
    allowed = small
    if table is not None:  # [Hq, length, length] of floats: no longer than is needed
        slots = max(capacity, SMALL_LENGTH)  # a graph for training asks for one
        table = _by_slot(graph, biases, min(slots, _end(graph, biases)), heads)
    elif longest > SMALL_LENGTH:
        allowed, _ = _seen(graph, biases, longest, heads)
    return Mask(_window(biases, allowed), table)


def _window(biases: Sequence[Bias], allowed: Tensor) -> int:
    size = len(allowed)
    window = int(allowed[-1].sum())
    query, key = torch.arange(size)[:, None], torch.arange(size)[None, :]
    expected = (key <= query) & (query - key < window)
    if not torch.equal(allowed, expected):
        _refuse_chunks(biases, allowed)
        row = int((allowed != expected).any(dim=1).nonzero()[0])
        raise PassError(
            f"find_attention: mask {_names(biases)} is neither causal nor a causal window: token "
            f"{row} sees {int(allowed[row].sum())} keys, wanted the last {min(row + 1, window)}"
        )
    return 0 if window == size else window


def _refuse_chunks(biases: Sequence[Bias], allowed: Tensor) -> None:
    """Raise PassError where tokens see those of their own chunk only (Llama 4)."""
    place = torch.arange(len(allowed))
    starts = place[allowed.sum(1) == 1]  # that see nothing but themselves: each begins a chunk
    chunk = int(starts[1]) if len(starts) > 1 else len(allowed)
    same = place[:, None] // chunk == place // chunk
    if torch.equal(allowed, same & (place <= place[:, None])):
        advice = "lcc has no kernel for so short chunks; use a model with windows, such as Gemma 3"
        if chunk > TRIED[0]:
            advice = f"a cache may hold no more than one; compile with --capacity {chunk} or less"
        raise PassError(
            f"find_attention: mask {_names(biases)} hides what is not in the same chunk of {chunk} "
            f"tokens: {advice}"
        )


def _names(biases: Sequence[Bias]) -> str:
    return " and ".join(dict.fromkeys(each.node.name for each in biases))


def _parents(biases: Sequence[Bias]) -> list[fx.Node]:
    return [node for each in biases for node in ancestors(each.node)]


def _end(graph: ModelGraph, biases: Sequence[Bias]) -> int:
    """The length of the shortest table that masks are read from."""
    tables = [
        tuple(attribute(graph, node).shape) for node in _parents(biases) if node.op == "get_attr"
    ]
    ends = [position_table(graph), *(table[-1] for table in tables if len(table) > 1)]
    return min((end for end in ends if end is not None and end > 1), default=NO_NUMBER)


def _length_that_shows(graph: ModelGraph, biases: Sequence[Bias], capacity: int) -> int:
    """Tokens of a text in which every window shows that is smaller than the cache."""
    nodes = _parents(biases)
    numbers = {
        abs(argument)
        for node in nodes
        for argument in node.args
        if isinstance(argument, int) and not isinstance(argument, bool)
    }
    numbers |= {
        int(number)
        for node in nodes
        if node.op == "get_attr"
        for number in attribute(graph, node).double().abs().flatten()[:16].tolist()
        if number.is_integer()
    }
    tried = min(max(capacity, TRIED[0]), TRIED[1]) + 1
    longest = max((n for n in numbers if n < min(NO_NUMBER, max(capacity, tried))), default=0)
    if longest > LARGEST_LENGTH:
        raise PassError(
            f"find_attention: mask {_names(biases)} is made with the number {longest}; a window of "
            f"more than {LARGEST_LENGTH} tokens is not supported in a cache of {capacity}; compile "
            f"with --capacity {LARGEST_LENGTH} or less"
        )
    return min(max(SMALL_LENGTH, longest + 3, tried), _end(graph, biases))


def _seen(
    graph: ModelGraph, biases: Sequence[Bias], length: int, heads: int
) -> tuple[Tensor, Tensor | None]:
    """[length, length] bool, who sees whom in consecutive positions; and what is added to it.

    The second is [Hq or 1, length or 1, length] float32, where it is not zero for what is seen.
    """
    length = min(length, _end(graph, biases))
    given = {
        graph.placeholder("position_ids"): torch.arange(length)[None],
        graph.placeholder("input_ids"): torch.zeros(1, length, dtype=torch.int64),
    }
    allowed, added = torch.ones(length, length, dtype=torch.bool), None
    for bias in sorted(biases, key=lambda each: each.how == "times"):  # those come last
        value = _three(bias, evaluate(graph, bias.node, given), length, heads)
        if bias.how == "times":
            if (allowed & (value != 1)).any():
                raise PassError(
                    f"find_attention: {bias.node.name} multiplies scores of keys that are seen by "
                    "numbers besides 1; wanted a mask"
                )
            continue
        if bias.how == "added" and value.dtype != torch.bool:
            value = value.float() * bias.factor
            sees = value > HIDDEN
            part = torch.where(sees, value, 0.0)
            if (part != 0).any():
                added = part if added is None else added + part
        else:
            sees = value == 0 if bias.how == "hidden" else value != 0
        if not torch.equal(sees.all(0), sees.any(0)):
            raise PassError(
                f"find_attention: mask {bias.node.name} hides different keys from different heads; "
                "masks per head are not supported"
            )
        allowed = allowed & sees.all(0)
    return allowed, added


def _three(bias: Bias, value: Tensor, length: int, heads: int) -> Tensor:
    """A mask as [1 or Hq, 1 or length, length]."""
    given = list(value.shape)
    value = value.reshape(-1, *value.shape[-2:]) if value.dim() > 2 else value[None]
    fits = value.shape[0] in (1, heads) and value.shape[1] in (1, length)
    if not fits or value.shape[2] != length:
        raise PassError(
            f"find_attention: mask {bias.node.name} has shape {given} for {length} tokens, wanted "
            f"[1, 1 or {heads}, {length}, {length}]"
        )
    return value


def _by_slot(graph: ModelGraph, biases: Sequence[Bias], slots: int, heads: int) -> Tensor:
    """[Hq, slots + 1]: what is added to the scores of the key in each slot, less that of the last.

    Raises PassError where it is not, for every query, a slope times the distance.
    """
    _, small = _seen(graph, biases, SMALL_LENGTH, heads)
    assert small is not None
    query, key = torch.arange(small.shape[2])[:, None], torch.arange(small.shape[2])
    small = small.expand(heads, len(query), len(query))
    relative = small - small.diagonal(dim1=1, dim2=2)[..., None]  # [Hq, Q, S], 0 for a query's own
    slopes = -relative[:, -1, 0] / (len(query) - 1)
    off = (relative - slopes[:, None, None] * (key - query)).masked_fill(key > query, 0.0).abs()
    if (off > LINEAR * slopes.abs()[:, None, None] * (query - key).abs() + 1e-5).any():
        raise PassError(
            f"find_attention: mask {_names(biases)} adds numbers besides 0 to visible scores that "
            "are not a slope times the distance of two tokens (ALiBi); lcc needs positions in the "
            "rotation or the embedding"
        )
    # The last row holds the bias of every slot that there is, in the model's own rounding.
    allowed, whole = _seen(graph, biases, slots, heads)
    if whole is None or not allowed[-1].all():
        raise PassError(
            f"find_attention: mask {_names(biases)}: a bias by distance and a window of "
            f"{int(allowed[-1].sum())} tokens; lcc has no kernel for both"
        )
    row = whole[:, -1].expand(heads, -1)
    # One column more than there are slots: all of a table is another graph than the first of it.
    return torch.nn.functional.pad(row - row[:, -1:], (0, 1))
