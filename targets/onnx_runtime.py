"""Programs -> ONNX files for ONNX Runtime; the weights once, beside them.

What the `lcc::` operators become is in `onnx_operators.py`.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from onnxscript.rewriter import onnx_fusions

from lcc.config import KvPrecision, Precision
from lcc.errors import TargetError, first_cause
from lcc.ir.program import HEAD, Program
from lcc.ir.roles import Role
from lcc.ir.stand_ins import traced
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.graph import is_call, shape
from lcc.targets import onnx_operators
from lcc.targets.base import Target
from lcc.targets.onnx_experts import lower_experts
from lcc.targets.onnx_exporter import decomposed_in_place
from lcc.targets.onnx_half_cache import attend_in_half
from lcc.targets.onnx_precision import lower_precision
from lcc.targets.onnx_weights import WeightsFile, refer_to_weights, transpose_weights

WEIGHTS_FILE = "weights.bin"
_SMALL = 100_000  # numbers of a constant that may be the same as another, and not a weight
_OF_LAYERS = (Role.QUERIES, Role.ENTRY_SCORE)  # outputs that nothing of the step reads


class OnnxRuntime(Target):
    """Target `onnxruntime:cpu`: one `.onnx` file a program, one file of weights for all."""

    name = "onnxruntime:cpu"
    precisions: tuple[Precision, ...] = ("fp32", "int8", "int4", "given")
    kv_precisions: tuple[KvPrecision, ...] = ("fp32", "fp16")

    def refusals(self, programs: list[Program]) -> list[str]:
        """Besides what it lacks, heads that the kernel of attention does not take."""
        kernel = (torch.ops.lcc.cached_attention.default, torch.ops.lcc.cached_sink_window.default)
        nodes = [node for program in programs for node in program.exported.graph.nodes]
        sizes = {shape(node.args[0])[3] for node in nodes if is_call(node, *kernel)}
        return super().refusals(programs) + [
            f"heads of {size} numbers; ONNX Runtime's attention takes multiples of 8"
            for size in sorted(sizes)
            if size % 8
        ]

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write all programs of an artifact; returns program name -> file name."""
        return write_models(((program, self._model(program)) for program in programs), folder)

    def _model(self, program: Program) -> ir.Model:
        model = to_onnx(program)
        # Experts have no kernel for levels of every kind: they are widened.
        routers = lower_experts(model, "fp32" if self.precision == "given" else self.precision)
        if self.precision != "fp32":
            lower_precision(model, self.precision, exact=routers)
        return model


def write_models(models: Iterable[tuple[Program, ir.Model]], folder: Path) -> dict[str, str]:
    """One file each, and their weights once, beside them; returns program name -> file name."""
    weights = WeightsFile(folder / WEIGHTS_FILE)
    files: dict[str, str] = {}
    for program, model in models:
        weights.move_out(model)
        content = ir.to_proto(model).SerializeToString(deterministic=True)
        # What another target built already, of the same name and perhaps the same content.
        names = itertools.chain(
            [program.file_stem], (f"{program.file_stem}_{n}" for n in range(2, 99))
        )
        path = next(p for p in (folder / f"{n}.onnx" for n in names) if _free(p, content))
        path.write_bytes(content)
        files |= dict.fromkeys(program.names, path.name)
    return files


def _free(path: Path, content: bytes) -> bool:
    return not path.exists() or path.read_bytes() == content


def to_onnx(
    program: Program, lowered: dict | None = None, opset: int = onnx_operators.OPSET
) -> ir.Model:
    """Lower the lcc:: operators and convert; inputs and outputs carry the program's names.

    lowered     what each operator becomes; None = ONNX Runtime's own kernels
    """
    how = {"whole": lowered is not None}
    lowered = onnx_operators.lowerings() if lowered is None else lowered
    with traced(program.exported) as made, decomposed_in_place(lowered, **how):
        try:
            model = _exported(program, opset)
        except Exception as error:  # the exporter raises many types, and wraps them
            raise TargetError(
                f"{program.file_stem}: it cannot be written as ONNX ({first_cause(error)}); "
                "compile for another target: lcc targets"
            ) from error
        refer_to_weights(model, made)
    if HEAD not in program.names:
        transpose_weights(model)  # else the optimizer does, and keeps all of them in memory
        optimizer.optimize_ir(model)
        onnx_fusions.fuse(model)
    _drop_reshapes(model)
    if attend_in_half(model):
        passes.RemoveUnusedNodesPass()(model)
    if HEAD not in program.names:  # masks are the same in all layers of a kind
        passes.DeduplicateInitializersPass(size_limit=_SMALL)(model)
        passes.CommonSubexpressionEliminationPass()(model)
    if program.is_step:
        _hand_out_early(model, program)
    _name_stably(model)
    return model


def _exported(program: Program, opset: int) -> ir.Model:
    with torch.no_grad():
        converted = torch.onnx.export(
            program.exported,
            dynamo=True,
            opset_version=opset,
            input_names=program.input_names,
            output_names=program.output_names,
            optimize=False,  # by us, and of the head nothing: its table would be stored twice
            verbose=False,
        )
    assert converted is not None  # it is None only for the old exporter
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


def _hand_out_early(model: ir.Model, program: Program) -> None:
    """Let what a layer gives be given where it is, so that nothing is held for it until the end.

        before   ..., Transpose -> queries_0, ..., Transpose -> queries_1, ..., hidden
        after    ..., hidden, Transpose -> queries_1, Transpose -> queries_0

    ONNX Runtime sorts nodes anew: backwards from those that nothing reads, the last one of the file
    first (`Graph::ReverseDFSFrom`). As the exporter leaves them the queries and retaining scores of
    all layers come after everything else, and what they are computed from is held until then: 18 of
    the 28 MB that a chunk of SmolLM2 takes (docs/results/memory.md).
    """
    pairs = zip(model.graph.outputs, program.outputs, strict=True)
    given = [out for out, spec in pairs if spec.role in _OF_LAYERS]
    for out in reversed(given):
        node = out.producer()
        assert node is not None
        model.graph.remove(node)
        model.graph.append(node)


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
                value.meta["rank"] = len(value.shape or ())
                value.shape = None  # ONNX Runtime infers it
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
