"""Attention over a cache in float16, by ONNX Runtime's kernel for it: in place, without a copy.

The kernel wants queries and new entries in the cache's type, too.

    before   key (half) -> Cast -> GroupQueryAttention -> Cast -> key_out (half)
    after    q, k, v -> Cast -> GroupQueryAttention over the halves -> Cast -> out
"""

import onnx_ir as ir

_CACHES = (3, 4)  # inputs of GroupQueryAttention: past keys and values
_FIRST = (0, 1, 2, 10, 11)  # queries, new keys, new values, bias, sinks


def attend_in_half(model: ir.Model) -> int:
    """Take away the casts around every cache in float16; returns around how many layers."""
    graph, done = model.graph, 0
    for node in list(graph):
        if node.op_type != "GroupQueryAttention" or _half(node.inputs[_CACHES[0]]) is None:
            continue
        for place in _FIRST:
            if place < len(node.inputs) and (value := node.inputs[place]) is not None:
                cast = _cast(value, ir.DataType.FLOAT16)
                graph.insert_before(node, cast)
                node.replace_input_with(place, cast.outputs[0])
        for place, out in zip(_CACHES, node.outputs[1:3], strict=True):
            node.replace_input_with(place, _half(node.inputs[place]))
            (use,) = out.uses()
            stored = use.node.outputs[0]
            name = stored.name
            out.type, out.shape = stored.type, stored.shape
            ir.convenience.replace_all_uses_with(stored, out, replace_graph_outputs=True)
            graph.remove(use.node, safe=True)
            out.name = name
        result = node.outputs[0]
        wide = _cast(result, ir.DataType.FLOAT)
        graph.insert_after(node, wide)
        ir.convenience.replace_all_uses_with(result, wide.outputs[0])
        wide.replace_input_with(0, result)
        result.type = ir.TensorType(ir.DataType.FLOAT16)
        done += 1
    return done


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    cast = ir.node("Cast", [value], attributes={"to": dtype})
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
    return cast


def _half(value: ir.Value | None) -> ir.Value | None:
    """The graph's input in float16 that a value is the cast of."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "Cast":
        return None
    source = producer.inputs[0]
    is_half = source is not None and source.dtype == ir.DataType.FLOAT16
    return source if is_half and source.is_graph_input() else None
