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
WEIGHTS_FILE = "weights.bin"
_INLINE_BYTES = 1024  # smaller constants stay in the graph file
_SMALL = 100_000  # numbers of a constant that may be the same as another, and not a weight
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
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`bias`: [1, 1 or Hq, Q, slots in use], added to the logits after scale and cap."""
    last = used + (q.shape[1] - 1)  # int32 [1]: valid entries after the step, less one
    attributes: dict = {"num_heads": q.shape[2], "kv_num_heads": k.shape[2], "scale": scale}
    if window > 0:
        attributes["local_window_size"] = window
    if softcap > 0:
        attributes["softcap"] = softcap
    flat = _flat(q)
    more = () if bias is None else (None, None, None, bias)  # angles and positions: already applied
    out, keys, values = symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (flat, _flat(k), _flat(v), key_cache, value_cache, last, (last + 1).reshape(()), *more),
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
    """The kernel of full layers, with a bias: -inf where a query does not see.

    For the first entries, it is the difference between the logits of `sink_q`, which are wanted,
    and those of `q`, which the kernel computes.
    """
    length, slots, total = q.shape[1], key_cache.shape[2], used.long() + q.shape[1]
    query, slot = (total - length + torch.arange(length))[:, None], torch.arange(slots)[None]
    oldest = query - window
    if block > 1:
        oldest = query // block * block - window + block - 1
    seen = (slot < sink) | (slot > oldest)  # what comes after a query the kernel hides
    bias = torch.where(seen, 0.0, -torch.inf).to(q.dtype)[None, None]  # [1, 1, Q, S]
    if sink == 0 or sink_q is q:
        bias = _cut(bias, total)
    else:
        near = _cut(bias[..., sink:], (total - sink).clamp(min=0))
        repeats = torch.cat([torch.full((1,), n) for n in (1, q.shape[2], 1, 1)])
        shape = (1, q.shape[2], *near.shape[2:])
        near = symbolic("Tile", (near, repeats), dtype=near.dtype, shape=shape, version=OPSET)
        more = _sink_bias(q, sink_q, _first_keys(key_cache, k, used, sink), scale, softcap)
        bias = torch.cat((_cut(more, total), near), dim=3)
    numbers = (scale, 0, softcap, rotation)
    return _cached_attention(q, k, v, key_cache, value_cache, used, *numbers, bias)


def _cut(x: Tensor, count: Tensor) -> Tensor:
    """The first `count` [1] int64 columns of x [1, H, Q, S]; of S, if there are fewer.

    How many they are is known when the program runs; here they pass for all.
    """
    zero, axis = torch.zeros(1, dtype=torch.int64), torch.full((1,), 3)
    return symbolic("Slice", (x, zero, count, axis), dtype=x.dtype, shape=x.shape, version=OPSET)


def _first_keys(key_cache: Tensor, k: Tensor, used: Tensor, sink: int) -> Tensor:
    """[Hkv, sink, D] keys of the first entries, of which some may come with this step."""
    both = torch.cat((key_cache[:, :, :sink], k.transpose(1, 2)), dim=2).squeeze(0)
    place = torch.arange(sink)
    new = (sink + place - used.long()).clamp(max=both.shape[1] - 1)
    return both.index_select(1, torch.where(place < used, place, new))


def _sink_bias(q: Tensor, sink_q: Tensor, keys: Tensor, scale: float, softcap: float) -> Tensor:
    """[1, Hq, Q, sink] logits of sink_q less those of q."""
    length, heads, size = q.shape[1:]

    def logits(x: Tensor) -> Tensor:
        grouped = (x * scale).reshape(length, keys.shape[0], heads // keys.shape[0], size)
        rows = grouped.permute(1, 2, 0, 3).reshape(keys.shape[0], -1, size)
        out = rows @ keys.transpose(1, 2)
        return torch.tanh(out / softcap) * softcap if softcap > 0 else out

    out = logits(sink_q) - logits(q) if softcap > 0 else logits(sink_q - q)
    return out.reshape(1, heads, length, keys.shape[1])


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
    cpu: str | None = None

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
    if any(name.startswith("lcc.") for name in operators):  # a trace of the whole graph
        exported = exported.run_decompositions(_lowerings())
    with torch.no_grad():
        converted = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            optimize=HEAD not in program.names,  # it would store a tied embedding transposed again
            verbose=False,
        )
    assert converted is not None  # it is None only for the old exporter
    _drop_reshapes(converted.model)
    if HEAD not in program.names:  # masks are the same in all layers of a kind
        passes.DeduplicateInitializersPass(size_limit=_SMALL)(converted.model)
        passes.CommonSubexpressionEliminationPass()(converted.model)
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
