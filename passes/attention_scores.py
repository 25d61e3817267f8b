"""What a softmax over tokens is computed from: a product of queries and keys, and what is added.

Followed from the softmax upwards, in any order that models write it:

    scaled      times or by a number
    capped      tanh(x / cap) * cap
    biased      plus what does not depend on the tokens: a mask, or a bias by distance
    chosen      where(mask, x, -inf), masked_fill(x, mask, -inf), x * mask + (1 - mask) * -1e4
    sinks       one more column, of a number for each head
    unchanged   copies, casts, views, less its own maximum, at least the least number there is
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx

from lcc.errors import PassError
from lcc.passes.graph import ModelGraph, aten, evaluate, is_call

SAME_VALUES = (
    aten.clone.default,
    aten.alias.default,
    aten.contiguous.default,
    aten._to_copy.default,
    aten.dropout.default,
)
RESHAPES = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.squeeze.dim,
    aten.unsqueeze.default,
)
PRODUCTS = (aten.matmul.default, aten.bmm.default)
HIDDEN = -1e4  # a score of this or less is of a key that is not seen
_NUMBERS = (int, float)


@dataclass(frozen=True)
class Bias:
    """What decides, without the tokens, how much a query sees of a key.

    how     added, times a factor; a boolean, of keys that are kept or hidden; or multiplied with, 1
            for what is seen and 0 for what is hidden by something else
    """

    node: fx.Node
    how: Literal["added", "kept", "hidden", "times"]
    factor: float = 1.0


@dataclass
class Scores:
    """softmax(cap(scale * q @ k) + biases), with a column of sinks."""

    q: fx.Node
    k: fx.Node
    scale: float
    softcap: float = 0.0
    biases: list[Bias] = field(default_factory=list)
    sinks: fx.Node | None = None


def through(node: fx.Node, *targets: Callable) -> fx.Node:
    """The node that holds the same values, above copies and casts."""
    while is_call(node, *SAME_VALUES, *targets):
        node = node.args[0]
    return node


def split_scalar(node: fx.Node) -> tuple[fx.Node, float]:
    """Peel products and quotients with a number: node = inner * factor."""
    factor = 1.0
    while True:
        node = through(node)
        if is_call(node, aten.mul.Tensor, aten.mul.Scalar) and isinstance(node.args[1], _NUMBERS):
            factor *= float(node.args[1])
        elif is_call(node, aten.div.Tensor, aten.div.Scalar) and isinstance(node.args[1], _NUMBERS):
            factor /= float(node.args[1])
        else:
            return node, factor
        node = node.args[0]


def read_scores(graph: ModelGraph, softmax: fx.Node, texts: set[fx.Node]) -> Scores:
    """Follow the scores of a softmax up to the product that they are; `texts` depend on tokens.

    Raises PassError that names the first node that does not fit.
    """
    return _Reader(graph, softmax, texts).read()


class _Reader:
    def __init__(self, graph: ModelGraph, softmax: fx.Node, texts: set[fx.Node]) -> None:
        self.graph, self.softmax, self.texts = graph, softmax, texts
        self.factor, self.softcap = 1.0, 0.0
        self.biases: list[Bias] = []
        self.sinks: fx.Node | None = None

    def read(self) -> Scores:
        node = self.softmax.args[0]
        while True:
            node, factor = split_scalar(node)
            self.factor *= factor
            if is_call(node, *PRODUCTS):
                q, k = node.args
                return self._found(q, k, self.factor)
            if is_call(node, aten.baddbmm.default):
                added, q, k = node.args
                self._bias(added, self.factor * node.kwargs.get("beta", 1))
                return self._found(q, k, self.factor * node.kwargs.get("alpha", 1))
            node = self._above(node)

    def _found(self, q: fx.Node, k: fx.Node, scale: float) -> Scores:
        (q, q_factor), (k, k_factor) = split_scalar(q), split_scalar(k)
        scale *= q_factor * k_factor
        return Scores(q, k, scale, self.softcap, self.biases[::-1], self.sinks)

    def _above(self, node: fx.Node) -> fx.Node:
        """The scores that a step is made from; notes what the step does to them."""
        if is_call(node, *RESHAPES):
            return node.args[0]
        if is_call(node, aten.tanh.default) and not self.softcap:
            self.softcap = self.factor
            return node.args[0]
        if is_call(node, aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, *_MAXIMA):
            return self._of_two(node, *node.args[:2])
        if is_call(node, aten.where.self, aten.where.ScalarOther) and self._least(node.args[2]):
            self._bias(node.args[0], how="kept")
            return node.args[1]
        if is_call(node, aten.where.self, aten.where.ScalarSelf) and self._least(node.args[1]):
            self._bias(node.args[0], how="hidden")
            return node.args[2]
        if is_call(node, *_FILLS) and self._least(node.args[2]):
            self._bias(node.args[1], how="hidden")
            return node.args[0]
        if is_call(node, aten.cat.default) and len(node.args[0]) == 2 and self.sinks is None:
            scores, self.sinks = node.args[0]
            return scores
        raise self._refusal(node)

    def _of_two(self, node: fx.Node, left: Any, right: Any) -> fx.Node:
        if is_call(node, aten.sub.Tensor) and _is_maximum(right, left):
            return left
        if left not in self.texts:
            left, right = right, left
        if left not in self.texts or right in self.texts or is_call(node, aten.sub.Tensor):
            raise self._refusal(node)
        if is_call(node, aten.mul.Tensor):
            self._bias(right, how="times")
        elif is_call(node, aten.add.Tensor):
            self._bias(right, self.factor * node.kwargs.get("alpha", 1))
        elif not self._least(right):
            raise self._refusal(node)
        return left

    def _bias(self, node: Any, factor: float = 1.0, how: Any = "added") -> None:
        if self.softcap or node in self.texts:
            raise self._refusal(node)
        self.biases.append(Bias(node, how, factor))

    def _least(self, value: Any) -> bool:
        """Whether this constant hides a score."""
        if isinstance(value, fx.Node) and value not in self.texts:
            value = float(evaluate(self.graph, value, {}).max())
        return isinstance(value, _NUMBERS) and value * self.factor <= HIDDEN

    def _refusal(self, node: Any) -> PassError:
        name = node.name if isinstance(node, fx.Node) else str(node)
        if node in self.texts and any(node is bias for bias in self.softmax.all_input_nodes):
            name = f"{name} (of {self.softmax.name})"
        return PassError(
            f"{self.softmax.name}: {name} is neither a product of q with the transpose of k nor "
            "something that lcc knows to be done to one (scales, caps, masks, sinks)"
        )


_MAXIMA = (aten.maximum.default, aten.max.other)
_FILLS = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)


def _is_maximum(node: Any, of: Any) -> bool:
    """Whether it is the largest of each row of another node."""
    node = through(node) if isinstance(node, fx.Node) else node
    if isinstance(node, fx.Node) and getattr(node.target, "__name__", "") == "getitem":
        node = node.args[0]
    return is_call(node, aten.max.dim, aten.amax.default) and node.args[0] is of


def sinks_of(graph: ModelGraph, node: fx.Node, heads: int) -> torch.Tensor:
    """[Hq] the logit of each head that stands for no key.

    Raises PassError where it changes from token to token.
    """
    length = 5
    given = {
        graph.placeholder("input_ids"): torch.zeros(1, length, dtype=torch.int64),
        graph.placeholder("position_ids"): torch.arange(length)[None],
    }
    value = evaluate(graph, node, given)
    rows = value.reshape(heads, -1) if value.numel() % heads == 0 else value.reshape(1, -1)
    if len(rows) != heads or not (rows == rows[:, :1]).all():
        raise PassError(
            f"find_attention: {node.name} is a column of {list(value.shape)} beside the scores, "
            f"wanted one number for each of {heads} heads"
        )
    return rows[:, 0].float().clone()
