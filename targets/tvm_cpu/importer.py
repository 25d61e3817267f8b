"""A program -> a module of TVM: one Relax function, and what it calls."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from lcc.ir.lazy_tensor import whole
from lcc.ir.program import HEAD, Program
from lcc.ir.roles import Role
from lcc.passes.programs.half_cache import CACHE
from lcc.targets.tvm_cpu.operators import operators
from lcc.targets.tvm_cpu.tir import Tiles
from lcc.targets.tvm_cpu.weights import PRODUCTS, Weight, weights_of, weights_of_experts


def import_program(
    program: Program, weights: list[Weight], tiles: Tiles, *, one_token: bool = False
) -> Any:
    """A module whose `main` takes the program's inputs, then its weights, in order.

    A cache that the program updates is written where it lies, and returned as it is.

    one_token   for steps of one token: what has as many rows as there are tokens has one
    """
    packed = {weight.name: weight for weight in weights if weight.sizes is not None}
    stored = {weight.name: (weight.shape(tiles), weight.dtype) for weight in weights}
    counted = program.with_role(Role.TOKENS, Role.ROWS) if one_token else []
    names = [program.input_node(spec.name).name for spec in counted]
    module = stored_importer(stored, names).from_exported_program(
        _with_parameters(program.exported, weights),
        keep_params_as_input=True,
        unwrap_unit_return_tuple=False,
        no_bind_return_tuple=False,
        custom_convert_map=operators(tiles, packed, fine=HEAD in program.names),
    )
    module["main"] = module["main"].without_attr("params")
    return module


def stored_importer(
    stored: dict[str, tuple[tuple[int, ...], str]], one_token: Sequence[str] = ()
) -> Any:
    """TVM's, with weights as they are stored.

    stored      shape and dtype of each
    one_token   inputs whose last size is 1, and so every size of that name
    """
    from tvm import relax
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    class Importer(ExportedProgramImporter):
        """Says what the inputs are, before any operator has made a loop of it."""

        def create_input_vars(self, exported_program: ExportedProgram) -> tuple:
            weights, inputs, ranges = super().create_input_vars(exported_program)
            for name, (shape, dtype) in stored.items():
                weights[name] = relax.Var(name, relax.TensorType(shape, dtype))
            if one_token:  # names of the nodes
                lengths = [inputs[name].ty.shape.values[-1] for name in one_token if name in inputs]
                for length in lengths:
                    ranges.pop(getattr(length, "name", None), None)
                for name, variable in inputs.items():
                    sizes = [
                        1 if any(s.same_as(length) for length in lengths) else s
                        for s in variable.ty.shape.values
                    ]
                    inputs[name] = relax.Var(name, relax.TensorType(sizes, variable.ty.dtype))
            return weights, inputs, ranges

    return Importer()


def _with_parameters(exported: ExportedProgram, weights: list[Weight]) -> ExportedProgram:
    """A shallow copy in which these weights are parameters, and empty: they are in the file."""
    signature = copy.deepcopy(exported.graph_signature)
    by_name = {weight.name: weight for weight in weights}
    state, constants = dict(exported.state_dict), dict(exported.constants)
    for spec in signature.input_specs:
        weight = by_name.get(spec.arg.name)
        if weight is not None and spec.target is not None:
            spec.kind = InputKind.PARAMETER
            constants.pop(spec.target, None)
            state[spec.target] = torch.empty(0, dtype=weight.tensor.dtype)
        elif spec.kind is InputKind.PARAMETER:
            spec.kind = InputKind.BUFFER  # small: it becomes a constant of the library
    state, constants = ({k: whole(v) for k, v in each.items()} for each in (state, constants))
    made = copy.copy(exported)
    made._graph_signature, made._state_dict, made._constants = signature, state, constants
    return made


def unknown_operators(programs: list[Program]) -> list[str]:
    """What neither TVM's importer nor ours knows, and types that no kernel works on."""
    from lcc.targets.tvm_cpu.tir import TILES

    known = {*stored_importer({}).create_convert_map(), *operators(next(iter(TILES.values())), {})}
    reasons, weights = [], weights_of(programs)
    for program in programs:
        nodes = program.exported.graph.nodes
        names = {n.target.__name__ for n in nodes if n.op == "call_function"}
        if strange := sorted(names - known):
            reasons.append(f"{program.file_stem}: no kernel for {', '.join(strange)}")
        products = [n for n in nodes if str(n.target) in PRODUCTS and n.op == "call_function"]
        factors = {n.args[PRODUCTS[str(n.target)][0]].name for n in products}
        unpacked = {w.name: w.tensor.dim() for w in weights[program.file_stem] if not w.layout}
        factors = {name for name in factors if unpacked.get(name) == 2}  # others are not packed
        experts = weights_of_experts(program.exported.graph, packed=True)
        factors |= {node.name for node in experts} & set(unpacked)
        reasons += [f"{program.file_stem}: {n} is a factor and more" for n in sorted(factors)]
        caches = {program.input_node(spec.name) for spec in program.with_role(*CACHE)}
        inputs = [n for n in nodes if n.op == "placeholder"]
        tensors = [n for n in inputs if isinstance(n.meta["val"], torch.Tensor)]
        halves = {n for n in tensors if n in caches and n.meta["val"].dtype == torch.float16}
        kinds = {str(n.meta["val"].dtype) for n in tensors if n not in halves}
        if strange := sorted(kinds & {"torch.float16", "torch.bfloat16", "torch.float64"}):
            reasons.append(f"{program.file_stem}: {', '.join(strange)}, wanted float32")
    return reasons
