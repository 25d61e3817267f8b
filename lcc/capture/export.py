"""nn.Module -> graph of logits = model(input_ids, position_ids), of any length."""

import re
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from lcc.capture.experts import experts_as_operators
from lcc.capture.frozen_angles import frozen_angles
from lcc.capture.latent_attention import latents_as_entries
from lcc.capture.recurrences import recurrences_as_operators
from lcc.capture.refusals import refuse, unknown_recurrence, unknown_state
from lcc.errors import CaptureError, first_line
from lcc.ir.stand_ins import stand_ins
from lcc.passes.graph import ModelGraph, ancestors, aten, evaluate, is_call

EXAMPLE_LENGTH = 24
_CASTS = (
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
    aten._to_copy.default,
)
_LOOK_BACK = (  # at tokens before, which are not there in the next chunk
    aten.conv1d.default,
    aten.convolution.default,
    aten.lstm.input,
    aten.gru.input,
)
_OURS = re.compile(
    r"(tokens|positions|query_rows|tokens_read|lengths|(used|kept|key|value|token_position_block_sparse)(_\d+)?)"
)
# Views of views that passes know by name; others are decomposed.
_VIEWS = (aten.reshape.default, aten.contiguous.default, aten.chunk.default)


class _Logits(nn.Module):
    """A Hugging Face decoder as a plain function, without its own cache classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits


def function_of(model: nn.Module) -> nn.Module:
    """What maps (input_ids, position_ids), both [1, Q] int64, to logits [1, Q, V]."""
    is_hugging_face = hasattr(model, "config") and hasattr(model.config, "model_type")
    return _Logits(model) if is_hugging_face else model


def capture(model: nn.Module, *, max_length: int = 1 << 20) -> ModelGraph:
    """Capture a decoder with `torch.export`, with a symbolic length; weights are referenced.

    model       a Hugging Face causal language model, or any module that maps
                (input_ids [1, Q] int64, position_ids [1, Q] int64) to logits [1, Q, V]
    max_length  bound of the symbolic length, in tokens

    The module is in evaluation mode afterwards.

    Raises CaptureError for what lcc knows that it cannot compile, with what the export stumbled
    over, or for weights that are not float32.
    """
    refuse(model)
    name = type(model).__name__
    _check_weights(model, name)
    ids = torch.arange(EXAMPLE_LENGTH)[None] % 7
    positions = torch.arange(EXAMPLE_LENGTH)[None]
    config = getattr(model, "config", None)
    limits = [getattr(config, each, None) for each in ("max_position_embeddings", "max_seq_len")]
    limit = min([max_length, *(each for each in limits if each)])
    # Of a text as long as a model's tables nothing is cut off them, which would be another graph.
    length = torch.export.Dim("Q", min=2, max=limit - 1)
    with (
        latents_as_entries(model),
        experts_as_operators(model),
        recurrences_as_operators(model),
        frozen_angles(model) as positions_end,
    ):
        exported = _exported(model, name, (ids, positions), length)
    _check_graph(exported, name, model)
    module = exported.module(check_guards=False)
    for node in list(module.graph.nodes):
        _simplify(node)
    module.graph.set_codegen(torch.fx.graph.CodeGen())  # plain positional inputs, a tuple out
    graph = ModelGraph(module, positions_end=positions_end)
    for node, wanted in zip(
        graph.graph.find_nodes(op="placeholder"), ("input_ids", "position_ids"), strict=True
    ):
        if node.name != wanted:
            node.name = node.target = wanted
    return _without_our_names(graph)


def _check_weights(model: nn.Module, name: str) -> None:
    for what, weight in model.named_parameters():
        if weight.is_floating_point() and weight.dtype != torch.float32:
            raise CaptureError(
                f"{name}: {what} is {str(weight.dtype).removeprefix('torch.')}, wanted float32: "
                "call float() on the model; --precision says what is stored"
            )


def _width(node: fx.Node) -> int:
    """Tokens that a convolution looks at; 0 of what is none."""
    kernel = node.args[1]
    return int(kernel.meta["val"].shape[-1]) if isinstance(kernel, fx.Node) else 0


def _check_graph(exported: ExportedProgram, name: str, model: nn.Module) -> None:
    for node in exported.graph.nodes:
        if is_call(node, *_LOOK_BACK) and _width(node) != 1:
            path, _ = [*node.meta["nn_module_stack"].values()][-1]
            inner = path.removeprefix("model.") if function_of(model) is not model else path
            module = dict(model.named_modules()).get(inner, model)
            raise CaptureError(f"{name}: {unknown_state(inner, module)}")
    if changed := exported.graph_signature.buffers_to_mutate:
        raise CaptureError(
            f"{name}: the model changes {', '.join(sorted(changed.values()))} while it reads; lcc "
            "compiles models that read without changing themselves"
        )
    value = exported.graph.output_node().args[0][0].meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dim() != 3:
        raise CaptureError(f"{name}: wanted logits [1, Q, V], got {getattr(value, 'shape', value)}")


def _exported(
    model: nn.Module, name: str, examples: tuple[torch.Tensor, ...], length: Any
) -> ExportedProgram:
    """The graph of a model of tokens and positions, whose length is left to the call."""
    function = function_of(model).eval()
    try:
        with torch.no_grad(), stand_ins(function) as made:
            exported = torch.export.export(
                function, examples, dynamic_shapes=({1: length}, {1: length})
            )
            if not all(_is_plain(node) for node in exported.graph.nodes):
                exported = exported.run_decompositions({})  # a trace of everything, so not always
            made.put_back(exported)
    except Exception as error:  # torch.export raises many types, its own and the model's
        if reason := unknown_recurrence(model):
            raise CaptureError(f"{name}: {reason} ({first_line(error)})") from error
        raise CaptureError(
            f"{name}: torch.export failed: {first_line(error)}; the model must map (input_ids, "
            "position_ids), both [1, Q] int64, to logits without branching on their values"
        ) from error
    return exported


def _without_our_names(graph: ModelGraph) -> ModelGraph:
    """Parameters of a model that are called as an input of ours get another name in the graph."""
    for node in graph.graph.find_nodes(op="get_attr"):
        if _OURS.fullmatch(node.name):
            node._rename(f"model_{node.name}")
    graph = graph.copy()  # which forgets the old names
    _fold(graph)
    graph.clean()
    return graph


def _fold(graph: ModelGraph) -> None:
    """Compute what a model computes of constants by operators that no target has."""
    for node in graph.calls(aten.erfinv.default):  # Gemma 3n: how many of its neurons are kept
        if not any(each.op == "placeholder" for each in ancestors(node)):
            value = evaluate(graph, node, {})
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.constant("folded", value))


def _is_plain(node: fx.Node) -> bool:
    """Whether passes know a call as it is: it writes nothing in place, and is no view of views."""
    target = node.target
    if isinstance(target, torch._ops.HigherOrderOperator):  # a region, of autocast or no_grad
        return False
    if not isinstance(target, torch._ops.OpOverload) or target in (*_CASTS, *_VIEWS):
        return True
    composite = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    is_view = any(each.alias_info is not None for each in target._schema.returns)
    return not target._schema.is_mutable and not (composite and is_view)


def _simplify(node: fx.Node) -> None:
    """Drop assertions, and copies that copy for nothing; of the many spellings of a cast one."""
    if is_call(node, aten.cat.default):
        _without_empty(node)
        return
    if is_call(node, aten._assert_tensor_metadata.default):
        node.graph.erase_node(node)
        return
    if is_call(node, *_CASTS):
        before, after = node.args[0].meta["val"], node.meta["val"]
        if (before.dtype, before.device) != (after.dtype, after.device):
            node.target, node.args = aten._to_copy.default, node.args[:1]
            node.kwargs = {"dtype": after.dtype}
            if before.device != after.device:
                node.update_kwarg("device", after.device)
            return
    elif not is_call(node, aten.dropout.default) or node.args[2]:  # True: of a model in training
        return
    node.replace_all_uses_with(node.args[0])
    node.graph.erase_node(node)


def _without_empty(cat: fx.Node) -> None:
    """Parts of no width are left out, as what a rotation of all channels lets pass."""
    axis = cat.args[1] if len(cat.args) > 1 else 0
    shapes = {part: part.meta["val"].shape for part in cat.args[0]}
    # PyTorch takes an empty row for a part of any number of axes.
    axes = max(len(shape) for shape in shapes.values())
    parts = [p for p in cat.args[0] if len(shapes[p]) == axes and shapes[p][axis] != 0]
    if len(parts) == 1:
        cat.replace_all_uses_with(parts[0])
        cat.graph.erase_node(cat)
    elif len(parts) < len(cat.args[0]):
        cat.update_arg(0, parts)
