"""Complex numbers, by which some models write their rotation, become real ones."""

from torch import Tensor, fx

from lcc.errors import PassError
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, aten, emit, is_call

# What does the same to both parts; the complex number is the first argument.
_PARTWISE = (
    aten.unsqueeze.default,
    aten.alias.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.expand.default,
    aten.transpose.int,
    aten.view.default,
    aten.clone.default,
)
Parts = tuple[fx.Node, fx.Node]  # real and imaginary


class SpellOutComplex(Pass):
    """Replace every complex number by its two parts: no target has a kernel for complex numbers.

        before   polar(1, angle), view_as_complex(x) -> mul -> view_as_real
        after    cos(angle), sin(angle), x[.., 0], x[.., 1] -> mul, sub, add -> cat

    Requires    FindAttention has run: it reads rotations by complex numbers as they are.
    Ensures     no complex number is left.
    """

    required = False

    def rewrite(self, graph: ModelGraph) -> int:
        """Replace them; return how many values became real again."""
        parts: dict[fx.Node, Parts] = {}
        made = 0
        for node in list(graph.graph.nodes):
            if not _is_complex(node) and not any(map(_is_complex, node.all_input_nodes)):
                continue
            with graph.graph.inserting_before(node):
                if is_call(node, aten.view_as_real.default):
                    node.replace_all_uses_with(_joined(graph.graph, *parts[node.args[0]]))
                    made += 1
                else:
                    parts[node] = _parts(graph.graph, node, parts)
        graph.graph.eliminate_dead_code()
        return made

    def ensures(self, graph: ModelGraph) -> None:
        """No complex number is left."""
        for node in filter(_is_complex, graph.graph.nodes):
            raise PassError(f"spell_out_complex: {node.name} ({node.target}) is still complex")


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def _parts(graph: fx.Graph, node: fx.Node, parts: dict[fx.Node, Parts]) -> Parts:
    """Both parts of a complex number; `parts` has those of what it is made of.

    Raises PassError for an operator that is not known.
    """
    if is_call(node, aten.polar.default):
        size, angle = node.args
        turned = (emit(graph, each, angle) for each in (aten.cos.default, aten.sin.default))
        real, imaginary = (emit(graph, aten.mul.Tensor, size, each) for each in turned)
        return real, imaginary
    if is_call(node, aten.view_as_complex.default):
        real, imaginary = (emit(graph, aten.select.int, node.args[0], -1, i) for i in (0, 1))
        return real, imaginary
    if is_call(node, *_PARTWISE):
        source, *rest = node.args
        real, imaginary = (emit(graph, node.target, each, *rest) for each in parts[source])
        return real, imaginary
    if is_call(node, aten.mul.Tensor):
        return _product(graph, *(parts.get(each, each) for each in node.args))
    raise PassError(
        f"spell_out_complex: {node.name} ({node.target}) of complex numbers; wanted products, and "
        "what changes their places only"
    )


def _product(graph: fx.Graph, one: object, other: object) -> Parts:
    """One times other: each a number, a real value, or both parts of a complex one."""

    def times(x: object, y: object) -> fx.Node:
        return emit(graph, aten.mul.Tensor, x, y)

    if not isinstance(one, tuple):
        one, other = other, one
    assert isinstance(one, tuple)
    if not isinstance(other, tuple):
        return times(one[0], other), times(one[1], other)
    (a, b), (c, d) = one, other
    real = emit(graph, aten.sub.Tensor, times(a, c), times(b, d))
    return real, emit(graph, aten.add.Tensor, times(a, d), times(b, c))


def _joined(graph: fx.Graph, real: fx.Node, imaginary: fx.Node) -> fx.Node:
    """[.., 2] of both parts."""
    rows = [emit(graph, aten.unsqueeze.default, each, -1) for each in (real, imaginary)]
    return emit(graph, aten.cat.default, rows, -1)
