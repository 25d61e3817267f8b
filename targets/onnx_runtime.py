"""Programs -> ONNX files for ONNX Runtime; the weights once, beside them.

Attention is com.microsoft.GroupQueryAttention, which writes new entries into the cache in place
when one buffer is bound as past and present; rotation and norms are standard (opset 23).
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from torch import Tensor
from torch.onnx.ops import symbolic, symbolic_multi_out

from lcc.program import HEAD, Program

OPSET = 23
SCATTER_OPSET = 24  # of programs that write with TensorScatter
WEIGHTS_FILE = "weights.bin"
_INLINE_BYTES = 1024  # smaller constants stay in the graph file
_ALIGNMENT = 4096  # of a tensor in the weights file, so that it can be memory-mapped


def _flat(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """RotaryEmbedding on [1, Q, H*D], with the cosines of each token given."""
    flat = _flat(x)
    attributes: dict = {"num_heads": x.shape[2], "interleaved": int(interleaved)}
    if 2 * cos.shape[2] < x.shape[3]:
        attributes["rotary_embedding_dim"] = 2 * cos.shape[2]
    out = symbolic(
        "RotaryEmbedding",
        (flat, cos, sin),
        attributes,
        dtype=x.dtype,
        shape=flat.shape,
        version=OPSET,
    )
    return out.reshape(x.shape)


def _cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    used: Tensor,
    scale: float,
    window: int,
    softcap: float,
    rotation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    last = used + (q.shape[1] - 1)  # int32 [1]: valid entries after the step, less one
    total = (used + q.shape[1]).reshape(())
    attributes: dict = {"num_heads": q.shape[2], "kv_num_heads": k.shape[2], "scale": scale}
    if window > 0:
        attributes["local_window_size"] = window
    if softcap > 0:
        attributes["softcap"] = softcap
    flat = _flat(q)
    out, keys, values = symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (flat, _flat(k), _flat(v), key_cache, value_cache, last, total),
        attributes,
        dtypes=(q.dtype, key_cache.dtype, value_cache.dtype),
        shapes=(flat.shape, key_cache.shape, value_cache.shape),
        version=1,
    )
    return out.reshape(q.shape), keys, values


def _cached_sink_window(
    q: Tensor,
    sink_q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    used: Tensor,
    sink: int,
    window: int,
    block: int,
    scale: float,
    softcap: float,
    rotation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix products over the few slots there are: GroupQueryAttention has no first entries.

    TensorScatter writes in place where past and present are one buffer, as that one does.
    """
    first = used.long()

    def write(cache: Tensor, new: Tensor) -> Tensor:
        inputs = (cache, new.transpose(1, 2), first)
        return symbolic(
            "TensorScatter",
            inputs,
            {"axis": -2},
            dtype=cache.dtype,
            shape=cache.shape,
            version=SCATTER_OPSET,
        )

    keys, values = write(key_cache, k), write(value_cache, v)
    length, heads, slots, size = q.shape[1], k.shape[2], key_cache.shape[2], q.shape[3]
    group = q.shape[2] // heads

    def by_head(x: Tensor) -> Tensor:
        x = x.reshape(length, heads, group, size).permute(1, 2, 0, 3)
        return x.reshape(heads, group * length, size)

    scores = by_head(q * scale) @ keys[0, :, sink:].transpose(1, 2)
    if sink:
        of_sinks = by_head(sink_q * scale) @ keys[0, :, :sink].transpose(1, 2)
        scores = torch.cat((of_sinks, scores), dim=2)  # [Hkv, g * Q, S]
    if softcap > 0:
        scores = torch.tanh(scores / softcap) * softcap
    query, slot = (first + torch.arange(length))[:, None], torch.arange(slots)[None]
    oldest = query - window
    if block > 1:
        oldest = query // block * block - window + block - 1
    visible = (slot <= query) & ((slot < sink) | (slot > oldest))
    hidden = torch.where(visible, 0.0, -torch.inf).to(q.dtype)  # [Q, S]
    weights = (scores.reshape(heads, group, length, slots) + hidden).softmax(-1)
    out = weights.reshape(heads, group * length, slots) @ values[0]
    out = out.reshape(heads, group, length, size).permute(2, 0, 1, 3)
    return out.reshape(q.shape).contiguous(), keys, values


def _lowerings() -> dict:
    """What each lcc:: operator becomes; a program that holds them has registered them."""
    lcc = torch.ops.lcc
    known = {
        "rotate": _rotate,
        "cached_attention": _cached_attention,
        "cached_sink_window": _cached_sink_window,
    }
    return {getattr(lcc, n).default: f for n, f in known.items() if hasattr(lcc, n)}


class OnnxRuntime:
    """Target `onnxruntime:cpu`: one `.onnx` file a program, one file of weights for all."""

    name = "onnxruntime:cpu"

    def refusals(self, programs: list[Program]) -> list[str]:
        """Nothing so far: every lcc:: operator has a kernel."""
        return []

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write all programs of an artifact; returns program name -> file name."""
        weights = _Weights(folder / WEIGHTS_FILE)
        files: dict[str, str] = {}
        for program in programs:
            model = to_onnx(program)
            weights.move_out(model)
            file = f"{program.file_stem}.onnx"
            ir.save(model, folder / file)
            files |= dict.fromkeys(program.names, file)
        return files


def to_onnx(program: Program) -> ir.Model:
    """Lower the lcc:: operators and convert; inputs and outputs carry the program's names."""
    exported = program.exported
    operators = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    scatters = "lcc.cached_sink_window.default" in operators
    if any(name.startswith("lcc.") for name in operators):  # a trace of the whole graph
        exported = exported.run_decompositions(_lowerings())
    with torch.no_grad():
        converted = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=SCATTER_OPSET if scatters else OPSET,
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            optimize=HEAD not in program.names,  # it would store a tied embedding transposed again
            verbose=False,
        )
    assert converted is not None  # it is None only for the old exporter
    _drop_reshapes(converted.model)
    _name_stably(converted.model)
    return converted.model


def _drop_reshapes(model: ir.Model) -> None:
    """Reshape only where the shape changes.

        before   linear -> [1, Q, Hq, D] -> [1, Q, Hq*D] -> RotaryEmbedding
        after    linear -> RotaryEmbedding

    Seven a layer, each a node to schedule: a twentieth of a decode step (docs/speed.md).
    """
    for node in model.graph:
        if node.op_type != "Reshape" or node.outputs[0].is_graph_output():
            continue
        source, out = node.inputs[0], node.outputs[0]
        assert source is not None
        while (before := source.producer()) is not None and before.op_type == "Reshape":
            source = before.inputs[0]
            assert source is not None
        if _known(source.shape) and source.shape == out.shape:
            ir.convenience.replace_all_uses_with(out, source, replace_graph_outputs=False)
    passes.RemoveUnusedNodesPass()(model)


def _known(shape: ir.Shape | None) -> bool:
    """Every size is a number or has a name: only then two equal shapes are the same one."""
    return shape is not None and all(isinstance(d, int) or d.value is not None for d in shape)


def _name_stably(model: ir.Model) -> None:
    """Drop what differs from run to run: names of symbolic sizes, and notes on the export."""
    names: dict[str, str] = {}
    for value in [*model.graph.inputs, *model.graph.outputs]:
        sizes = [
            size if isinstance(size, int) else names.setdefault(str(size), f"size_{len(names)}")
            for size in value.shape or ()
        ]
        value.shape = ir.Shape(sizes)
        value.metadata_props.clear()
    interface = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in interface:
                value.shape = None  # ONNX Runtime infers it
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


class _Weights:
    """The weights file: every distinct tensor once, whichever programs use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets: dict[bytes, int] = {}
        path.write_bytes(b"")

    def move_out(self, model: ir.Model) -> None:
        """Replace a model's large constants by references into the file."""
        with self.path.open("ab") as file:
            for value in model.graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _INLINE_BYTES:
                    continue
                data = tensor.numpy()
                content = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
                key = hashlib.blake2b(content).digest()
                if key not in self.offsets:
                    file.seek(0, 2)
                    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                    self.offsets[key] = file.tell()
                    file.write(content)  # not tofile: it hides why a disk refused
                value.const_value = ir.ExternalTensor(
                    self.path.name,
                    self.offsets[key],
                    tensor.nbytes,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=value.name,
                    base_dir=self.path.parent,
                )
