"""A program in half precision -> a TVM module, and the weights that it takes, in order."""

import copy
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from lcc.ir.lazy_tensor import whole
from lcc.ir.program import Program
from lcc.targets import standard_operators


def import_program(program: Program) -> tuple[Any, list[torch.Tensor]]:
    """The module, whose `main` takes the program's inputs, then its weights, which may be lazy."""
    from lcc.targets.tvm_cpu.importer import stored_importer
    from lcc.targets.tvm_cpu.repairs import REPAIRS

    exported = program.exported
    if any(str(node.target).startswith("lcc.") for node in exported.graph.nodes):
        exported = exported.run_decompositions(standard_operators.lowerings())
    weights = {
        spec.arg.name: exported.state_dict[spec.target].detach()
        for spec in exported.graph_signature.input_specs
        if spec.kind is InputKind.PARAMETER and spec.target is not None
    }
    stored = {
        name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in weights.items()
    }
    module = stored_importer(stored).from_exported_program(
        _without_weights(exported),
        keep_params_as_input=True,
        unwrap_unit_return_tuple=False,
        no_bind_return_tuple=False,
        custom_convert_map={**REPAIRS, **_HALF},
    )
    module["main"] = module["main"].without_attr("params")
    return module, list(weights.values())


def _without_weights(exported: ExportedProgram) -> ExportedProgram:
    """A shallow copy whose parameters are empty: the importer is told their shapes."""
    names = set(exported.graph_signature.parameters)
    made = copy.copy(exported)
    made._state_dict = {
        name: torch.empty(0, dtype=tensor.dtype) if name in names else whole(tensor)
        for name, tensor in exported.state_dict.items()
    }
    made._constants = {name: whole(value) for name, value in exported.constants.items()}
    return made


def _matmul(node: fx.Node, importer: Any) -> Any:
    """Added up in float32, and rounded once: TVM's importer leaves it at float32."""
    from tvm import relax

    a, b = (importer.env[each] for each in node.args)
    return _product(node, importer, relax.op.matmul(a, b, out_dtype="float32"))


def _linear(node: fx.Node, importer: Any) -> Any:
    """The same, with a weight [N, K], and perhaps a bias."""
    from tvm import relax

    x, weight, *bias = (importer.env[each] for each in node.args)
    turned = importer.block_builder.emit(relax.op.permute_dims(weight))
    out = _product(node, importer, relax.op.matmul(x, turned, out_dtype="float32"))
    return importer.block_builder.emit(relax.op.add(out, bias[0])) if bias else out


def _addmm(node: fx.Node, importer: Any) -> Any:
    """Bias and product."""
    from tvm import relax

    bias, a, b = (importer.env[each] for each in node.args)
    out = _product(node, importer, relax.op.matmul(a, b, out_dtype="float32"))
    return importer.block_builder.emit(relax.op.add(out, bias))


def _product(node: fx.Node, importer: Any, product: Any) -> Any:
    from tvm import relax

    wanted = str(node.meta["val"].dtype).removeprefix("torch.")
    emit = importer.block_builder.emit
    return emit(relax.op.astype(emit(product), wanted))


def _view(node: fx.Node, importer: Any) -> Any:
    """Another shape."""
    from tvm import relax

    shape = importer.retrieve_args(node)[1]
    return importer.block_builder.emit(relax.op.reshape(importer.env[node.args[0]], shape))


_HALF = {
    "linear.default": _linear,
    "addmm.default": _addmm,
    "matmul.default": _matmul,
    "mm.default": _matmul,
    "bmm.default": _matmul,
    "_unsafe_view.default": _view,
}
