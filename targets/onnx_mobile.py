"""Programs -> files for ONNX Runtime on phones: for its own kernels, or for an accelerator."""

import contextlib
import functools
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

from lcc.errors import TargetError
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.passes.programs.base import ProgramPass
from lcc.passes.programs.static_shapes import StaticShapes
from lcc.targets import standard_operators
from lcc.targets.base import EXPERTS, STATES, Target
from lcc.targets.onnx_runtime import OnnxRuntime, to_onnx, write_models

LEAST_SHARE = 0.75  # of the nodes, in one piece: less, says ONNX Runtime's checker, does not pay
# What compares or looks up, and what only some accelerators have; it comes before the layers.
_ON_HOST = (
    *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or"),
    *("Mod", "Cos", "Where", "Gather"),
)


class OnnxMobile(OnnxRuntime):
    """Target `onnxruntime:mobile`: the programs of `onnxruntime:cpu` in ORT format, for Arm.

    Beside them required_operators_and_types.config, which a reduced build of ONNX Runtime takes as
    --include_ops_by_config. ORT format holds the weights of each program in its file.
    """

    precisions = ("fp32",)
    kv_precisions = ("fp32",)
    name = "onnxruntime:mobile"
    lacks = (EXPERTS,)  # nobody has tried them in ORT format
    note = "run on an x86 CPU, never on a phone"

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write all programs of an artifact; returns program name -> file name."""
        from onnxruntime.tools.convert_onnx_models_to_ort import (
            OptimizationStyle,
            convert_onnx_models_to_ort,
        )

        with tempfile.TemporaryDirectory(dir=folder) as place:
            files = super().build(programs, Path(place))
            with _quiet():
                convert_onnx_models_to_ort(
                    Path(place),
                    output_dir=folder,
                    optimization_styles=[OptimizationStyle.Fixed],
                    target_platform="arm",
                    enable_type_reduction=True,
                )
        return {name: f"{Path(file).stem}.ort" for name, file in files.items()}


class OnnxAccelerator(OnnxRuntime):
    """Targets `onnxruntime:nnapi` and `onnxruntime:coreml`: the layers in standard operators.

    The step is two programs of static shapes, for a whole chunk and for one token; head and cycles
    stay with the CPU. What is not accepted is refused when it is compiled, not found on the phone.
    """

    precisions = ("fp32",)
    kv_precisions = ("fp32",)
    hands_out_every_row = True
    archives = False  # an archive has any number of rows, and shapes here are fixed
    lacks = (EXPERTS, STATES)

    def __init__(self, device: str) -> None:
        self.name, self.device = f"onnxruntime:{device}", device
        self.note = "run on a CPU, never on a device"

    def refusals(self, programs: list[Program]) -> list[str]:
        """What it lacks: standard operators take heads of any size."""
        return Target.refusals(self, programs)

    def passes(self) -> list[ProgramPass]:
        """The step as prefill_chunk and decode, each of one length, with the whole capacity."""
        return [StaticShapes(Role.POSITIONS)]

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write all programs of an artifact; returns program name -> file name.

        Raises:
            TargetError: the checker of ONNX Runtime says that a step would be torn to pieces.
        """
        first: dict[str, int] = {}

        def convert(program: Program) -> tuple[Program, ir.Model]:
            if not program.is_step:
                return program, to_onnx(program)
            model = to_onnx(program, standard_operators.lowerings(), standard_operators.OPSET)
            first[program.names[0]] = _put_first(model, _ON_HOST)
            return program, model

        files = write_models(map(convert, programs), folder)
        for name, host in first.items():
            share, refused = largest_piece(folder / files[name], self.device, skip=host)
            if share < LEAST_SHARE:
                raise TargetError(
                    f"{self.name}: {name} would be cut to pieces by what the device does not have "
                    f"({', '.join(refused)}), the largest has {share:.0%} of it; wanted "
                    f"{LEAST_SHARE:.0%}; compile for onnxruntime:mobile"
                )
        return files


def largest_piece(model: Path, device: str, *, skip: int = 0) -> tuple[float, list[str]]:
    """Share of the nodes that an accelerator would run in one piece, and what keeps it from all.

    skip    nodes at the beginning that do not count

    By onnxruntime's checker of mobile usability, which knows names of operators and shapes: what an
    operator is given may still be refused on the device.
    """
    import onnx
    from onnxruntime.tools.mobile_helpers import usability_checker as checker

    with _quiet():
        page = onnx.shape_inference.infer_shapes(onnx.load(model, load_external_data=False))
        if device == "nnapi":
            found = checker.check_nnapi_partitions(page, True)
        else:
            table = "coreml_supported_mlprogram_ops.md"
            found = checker.check_coreml_partitions(page, True, table)
    reasons = sorted(name.removeprefix("ai.onnx:") for name in found.unsupported_ops)
    if found.nodes_unsupported_due_to_dynamic_input:
        reasons.append("sizes that are not static")
    largest = max(map(len, found.supported_groups), default=0)
    return min(1.0, largest / (found.num_nodes - skip)), reasons


def _put_first(model: ir.Model, operators: Sequence[str]) -> int:
    """Move these nodes, and what they are computed of, before all others; how many they are.

    Those that need a matrix product stay where they are.
    """
    needed: set[ir.Node] = set()
    late: set[ir.Node] = set()
    for node in model.graph:
        producers = {value.producer() for value in node.inputs if value is not None}
        if node.op_type == "MatMul" or producers & late:
            late.add(node)
    for node in reversed(list(model.graph)):
        if node not in late and (node.op_type in operators or node in needed):
            needed.add(node)
            producers = {value.producer() for value in node.inputs if value is not None}
            needed |= {each for each in producers if each is not None}
    first = [node for node in model.graph if node in needed]
    rest = next(node for node in model.graph if node not in needed)
    model.graph.remove(first)
    model.graph.insert_before(rest, first)
    return len(first)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what onnxruntime's tools log."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


nnapi = functools.partial(OnnxAccelerator, "nnapi")
coreml = functools.partial(OnnxAccelerator, "coreml")
