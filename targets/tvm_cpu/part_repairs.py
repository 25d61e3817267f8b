"""Repairs of operators that take or replace a part of an axis.

Each function takes a node of the exported graph and the importer, and returns a Relax value.
"""

import sys
from typing import Any

from torch import fx


def sizes(node: fx.Node) -> list:
    """Shape of a node's value, numbers; None = known when it runs."""
    return [size if isinstance(size, int) else None for size in node.meta["val"].shape]


def _slice(node: fx.Node, importer: Any) -> Any:
    """Every step-th row; TVM's own forgets how many they are where the size is no number."""
    args: list = list(importer.retrieve_args(node))
    defaults: list = [None, 0, None, None, 1]
    x, axis, start, end, step = args + defaults[len(args) :]
    if _shape(node) == _shape(node.args[0]):
        return x
    axis = axis % x.ty.ndim
    assert step == 1 or sizes(node)[axis] is not None
    start = 0 if start is None else start
    if not isinstance(start, int) and _is_negative(node.args[2]):
        start = x.ty.shape.values[axis] + start
    end = None if end is None or (isinstance(end, int) and end >= sys.maxsize) else end

    def count(size: Any) -> Any:
        known = sizes(node)[axis]
        last = size if end is None else size + end if isinstance(end, int) and end < 0 else end
        return last - _from_front(start, size) if known is None else known

    return part(importer, x, axis, start, count, step)


def _shape(node: Any) -> list[str]:
    """Sizes and their names: two that are written alike are alike."""
    return [str(size) for size in node.meta["val"].shape]


def _is_negative(size: Any) -> bool:
    """Whatever the sizes that it is computed of: a model counts from the end."""
    value = size.meta["val"].node
    return bool(value.shape_env.bound_sympy(value.expr).upper < 0)


def _from_front(start: Any, size: Any) -> Any:
    """Where a part begins; a negative number counts from the end, a size is never negative."""
    return size + start if isinstance(start, int) and start < 0 else start


def part(importer: Any, x: Any, axis: int, start: Any, count: Any, step: int = 1) -> Any:
    """Rows along an axis, from `start` on, a number or a size; `count`: size -> how many."""
    from tvm import te

    def taken(source: Any) -> Any:
        size = source.shape[axis]
        first = _from_front(start, size)
        shape = [count(size) if i == axis else size for i, size in enumerate(source.shape)]

        def at(*index: Any) -> Any:
            places = (n * step + first if i == axis else n for i, n in enumerate(index))
            return source(*places)

        return te.compute(shape, at, name="part")

    return importer.block_builder.emit_te(taken, x)


def _select(node: fx.Node, importer: Any) -> Any:
    """One row of an axis, as an expression that fuses."""
    from tvm import te

    x, axis, place = importer.retrieve_args(node)
    axis = axis % x.ty.ndim
    size = x.ty.shape.values[axis]
    place = size + place if isinstance(place, int) and place < 0 else place

    def select(source: Any) -> Any:
        shape = [size for i, size in enumerate(source.shape) if i != axis]

        def at(*index: Any) -> Any:
            return source(*index[:axis], place, *index[axis:])

        return te.compute(shape, at, name="select")

    return importer.block_builder.emit_te(select, x)


def _slice_scatter(node: fx.Node, importer: Any) -> Any:
    """Another value for every step-th row, as an expression that fuses."""
    args: list = list(importer.retrieve_args(node))
    defaults: list = [None, None, 0, None, None, 1]
    x, source, axis, start, end, step = args + defaults[len(args) :]
    size = x.ty.shape.values[axis % x.ty.ndim]
    first = _from_front(0 if start is None else start, size)
    last = None if end is None else _from_front(end, size)

    def inside(place: Any) -> list:
        here = [place >= first, (place - first) % step == 0]
        return here if last is None else [*here, place < last]

    return _replace(importer, x, source, axis, inside, lambda place: (place - first) // step)


def _select_scatter(node: fx.Node, importer: Any) -> Any:
    """Another value for one row of an axis."""
    from tvm import relax

    x, source, axis, place = importer.retrieve_args(node)
    place = _from_front(place, x.ty.shape.values[axis % x.ty.ndim])
    source = importer.block_builder.emit(relax.op.expand_dims(source, axis % x.ty.ndim))
    return _replace(importer, x, source, axis, lambda i: [i == place], lambda _: 0)


def _replace(importer: Any, x: Any, source: Any, axis: int, inside: Any, place: Any) -> Any:
    """Another value where an axis is at certain places.

    inside      index along the axis -> conditions that all hold where the value is replaced
    place       index -> where the new value lies in `source`
    """
    from tvm import te, tirx

    axis = axis % x.ty.ndim

    def replaced(old: Any, new: Any) -> Any:
        def at(*index: Any) -> Any:
            i = index[axis]
            value = new(*index[:axis], place(i), *index[axis + 1 :])
            return tirx.if_then_else(tirx.all(*inside(i)), value, old(*index))

        return te.compute(old.shape, at, name="replace")

    return importer.block_builder.emit_te(replaced, x, source)


def _index_select(node: fx.Node, importer: Any) -> Any:
    """Rows by their numbers; TVM's own reads whatever lies where there is no such row."""
    from tvm import relax

    x, axis, rows = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.take(x, rows, axis, mode="clip"))


def inside(importer: Any, x: Any, axis: int, index: Any) -> Any:
    """Places along an axis of x, the nearest where there is no such place: a kernel trusts them.

    An axis has at least one; engines refuse sizes of 0.
    """
    from tvm import te, tirx

    axis = axis % x.ty.ndim

    def nearest(array: Any, places: Any) -> Any:
        def at(*i: Any) -> Any:
            last = (array.shape[axis] - 1).astype(places.dtype)
            return tirx.max(tirx.min(places(*i), last), tirx.const(0, places.dtype))

        return te.compute(places.shape, at, name="inside")

    return importer.block_builder.emit_te(nearest, x, index)


PART_REPAIRS = {
    "index_select.default": _index_select,
    "slice.Tensor": _slice,
    "select.int": _select,
    "slice_scatter.default": _slice_scatter,
    "select_scatter.default": _select_scatter,
}
