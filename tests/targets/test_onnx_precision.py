"""Weights in 8 and 4 bits: the graph computes what the rounded weights say, and little is lost."""

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

import lcc.runtime
from lcc.artifact.cpu import adds_byte_products
from lcc.artifact.manifest import read_manifest
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, Precision
from lcc.errors import ConfigError, TargetError
from lcc.ir.program import Input, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.measure.verify import verify
from lcc.passes.specialize import Specialized
from lcc.sources.models import LoadedModel
from lcc.sources.quantized import unpacked
from lcc.sources.stored import safetensors_of
from lcc.targets.low_bits import BLOCK, blocks_of_4_bits, columns_of_8_bits, rows_of_8_bits
from lcc.targets.onnx_precision import lower_precision
from lcc.targets.onnx_runtime import to_onnx
from lcc.testing.quantized_writing import compressed_int8, gptq

DRAW = np.random.default_rng(0)
LOW: tuple[Precision, ...] = ("int8", "int4")


def constant(name: str, array: np.ndarray) -> ir.Value:
    return ir.Value(name=name, const_value=ir.tensor(array, name=name))


def model_of(*nodes: ir.Node, inputs: list[ir.Value], weights: list[ir.Value]) -> ir.Model:
    out = nodes[-1].outputs[0]
    out.name, out.type = "out", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape([1, "n", None])
    graph = ir.Graph(
        inputs, [out], nodes=nodes, initializers=weights, opset_imports={"": 23}, name="g"
    )
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    content, options = ir.to_proto(model).SerializeToString(), onnxruntime.SessionOptions()
    # As the engine does, where a sum of two products of bytes would be cut off at 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, feeds)
    return np.asarray(out)


def inputs_of_8_bits(x: np.ndarray) -> np.ndarray:
    """Each token rounded to a scale of its own."""
    scale = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.rint(x / scale) * scale


@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Gemm transposed"])
@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("size", [80, 96])
def test_a_layer(
    operator: str, precision: Precision, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same product of the numbers that the rounding gave.

    80 inputs are no whole number of blocks; 96 are too many for a matrix that adds blocks up.
    """
    monkeypatch.setattr("lcc.targets.onnx_precision._MOST_ADDED_BY_PRODUCT", 81)
    weight = DRAW.standard_normal((size, 24)).astype(np.float32) * 0.2 + 0.05
    x = DRAW.standard_normal((1, 7, size)).astype(np.float32)
    x[0, 3] *= 100  # its scale is its own
    bias = DRAW.standard_normal(24).astype(np.float32)
    flat = operator != "MatMul"
    given = ir.Value(
        name="x", shape=ir.Shape(["n", size] if flat else [1, "n", size]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )  # fmt: skip
    transposed = operator.endswith("transposed")
    w = constant("w", np.ascontiguousarray(weight.T) if transposed else weight)
    parts = [given, w, constant("b", bias)] if flat else [given, w]
    node = ir.node(operator.split()[0], parts, attributes={"transB": 1} if transposed else {})
    model = model_of(node, inputs=[given], weights=parts[1:])
    if flat:
        model.graph.outputs[0].shape = ir.Shape(["n", 24])
    assert lower_precision(model, precision) == 1
    assert all(
        each.op_type != operator.split()[0] or each.inputs[1] is not w for each in model.graph
    )
    got = run(model, x=x[0] if flat else x).reshape(x.shape[1], 24)
    if precision == "int8":
        levels, scales = columns_of_8_bits(weight)
        wanted = inputs_of_8_bits(x[0]) @ (levels * scales)
        close = 2e-4
    else:
        levels, scales, offsets = blocks_of_4_bits(weight)
        assert offsets is not None
        nibbles = np.stack((levels & 15, levels >> 4), axis=-1).reshape(24, -1, BLOCK)
        again = (nibbles - 8.0) * scales[..., None] + offsets.T[..., None]
        wanted = x[0] @ again.reshape(24, -1)[:, :size].T
        close = 2e-2  # the kernel rounds its inputs too, block by block
    wanted = wanted + bias if flat else wanted
    largest = np.abs(x[0]).max(axis=-1, keepdims=True)
    assert (np.abs(got - wanted) / largest).max() < close


def test_the_embedding_and_the_head_are_the_same_bytes() -> None:
    table = DRAW.standard_normal((50, 64)).astype(np.float32)
    tokens = ir.Value(
        name="tokens", shape=ir.Shape([1, "n"]), type=ir.TensorType(ir.DataType.INT64)
    )
    gather = ir.node("Gather", [w := constant("e", table), tokens])
    rows = model_of(gather, inputs=[tokens], weights=[w])
    x = ir.Value(name="x", shape=ir.Shape([1, "n", 64]), type=ir.TensorType(ir.DataType.FLOAT))
    turned = ir.node("Transpose", [h := constant("e", table)], attributes={"perm": [1, 0]})
    head = model_of(turned, ir.node("MatMul", [x, turned.outputs[0]]), inputs=[x], weights=[h])
    stored = []
    for model in (rows, head):
        assert lower_precision(model, "int4") == 1
        stored.append(model.graph.initializers["e.int8"].const_value.numpy().tobytes())
    assert stored[0] == stored[1]
    levels, scales, _ = rows_of_8_bits(table)
    again = ((levels - 128.0) * scales[..., None]).reshape(50, 64)
    ids = np.array([[3, 49, 0]])
    np.testing.assert_allclose(run(rows, tokens=ids)[0], again[ids[0]], atol=1e-6)
    hidden = DRAW.standard_normal((1, 4, 64)).astype(np.float32)
    assert np.abs(run(head, x=hidden) - hidden @ again.T).max() < 0.3


def test_what_is_no_matrix_of_weights_stays() -> None:
    """A table of angles is looked up by places, not by tokens."""
    place = ir.Value(
        name="positions", shape=ir.Shape([1, "n"]), type=ir.TensorType(ir.DataType.INT64)
    )
    node = ir.node("Gather", [w := constant("a", np.ones((40, 64), np.float32)), place])
    model = model_of(node, inputs=[place], weights=[w])
    assert lower_precision(model, "int8") == 0
    assert [each.op_type for each in model.graph] == ["Gather"]


@pytest.mark.parametrize(
    ("architecture", "precision"),  # which layers are found does not depend on the bits
    [
        *((name, "int8") for name in ("llama", "gpt2", "phi3", "gemma3_text")),
        *((name, "int4") for name in ("llama", "gpt2")),
    ],
)
def test_every_architecture(
    architecture: str,
    precision: Precision,
    compiled: Callable[..., Path],
    loaded: Callable[..., LoadedModel],
) -> None:
    """No layer is left in 32 bits, and what is lost is little, after cycles too."""
    folder = compiled("onnxruntime:cpu", architecture=architecture, precision=precision)
    report = verify(folder, loaded(architecture), prompt_tokens=90)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert not report.exact
    assert any("cycles" in row.what for row in report.rows)
    assert read_manifest(folder).precision == precision
    step = ir.load(folder / "step.onnx")
    left = [
        node.inputs[1].name
        for node in step.graph
        if node.op_type in ("MatMul", "Gemm")
        and node.inputs[1].const_value is not None
        and not node.inputs[1].name.startswith("blocks_of_")
        and not node.inputs[1].name.endswith(".offsets")
    ]
    assert not left
    count = Counter(node.op_type for node in step.graph)
    assert count["MatMulIntegerToFloat" if precision == "int8" else "MatMulNBits"] >= 8


def test_what_is_a_row_a_token_already_is_not_reshaped(
    specialized: Callable[..., Specialized],
) -> None:
    model = to_onnx(specialized("llama", "knorm").programs[0])
    before = Counter(node.op_type for node in model.graph)
    lower_precision(model, "int8")
    after = Counter(node.op_type for node in model.graph)
    assert after["MatMulIntegerToFloat"] > 8
    assert after["Concat"] == before["Concat"], "sizes are put together nowhere else"


def test_a_table_that_cannot_be_rounded_is_no_int4_model() -> None:
    tokens = ir.Value(
        name="tokens", shape=ir.Shape([1, "n"]), type=ir.TensorType(ir.DataType.INT64)
    )
    node = ir.node("Gather", [w := constant("e", np.ones((40, 48), np.float32)), tokens])
    with pytest.raises(TargetError, match="e: rows of 48 numbers"):
        lower_precision(model_of(node, inputs=[tokens], weights=[w]), "int4")


@pytest.mark.parametrize("precision", LOW)
def test_the_memory_table_counts_what_is_stored(
    precision: Precision, compiled: Callable[..., Path]
) -> None:
    """Every distinct constant once, and the head's table packed once more.

    Of 4 bits, what the kernel adds when it packs: for every 32 weights a sum in float32.
    """
    folder = compiled("onnxruntime:cpu", precision=precision)
    manifest = read_manifest(folder)
    stored: dict[object, int] = {}
    packed = 0
    for path in folder.glob("*.onnx"):
        graph = ir.load(path).graph
        for node in graph:
            if node.op_type == "MatMulNBits" and node.attributes["bits"].as_int() == 4:
                packed += 4 * node.attributes["K"].as_int() * node.attributes["N"].as_int() // 32
        for value in graph.initializers.values():
            tensor = value.const_value
            outside = isinstance(tensor, ir.ExternalTensor)
            stored[tensor.offset if outside else (path.name, value.name)] = tensor.nbytes
            packed += tensor.nbytes if path.name == "head.onnx" and outside else 0
    assert manifest.memory[0].bytes == pytest.approx(sum(stored.values()) + packed, rel=0.05)


def test_it_takes_less_and_says_so(compiled: Callable[..., Path]) -> None:
    weights, files = {}, {}
    for precision in ("fp32", *LOW):
        folder = compiled("onnxruntime:cpu", precision=precision)
        weights[precision] = read_manifest(folder).memory[0].bytes
        files[precision] = (folder / "weights.bin").stat().st_size
        lcc.runtime.open(folder).feed("any text " * 40)
    assert weights["int4"] < weights["int8"] < weights["fp32"] / 3
    assert files["int4"] < files["int8"] < files["fp32"] / 2


def test_cpus_that_cut_byte_products_off_get_exact_ones(
    compiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = compiled("onnxruntime:cpu", precision="int8")
    logits, asked = [], []
    for has in (True, False):
        monkeypatch.setattr(
            "lcc.runtime.engines.onnx_runtime.adds_byte_products", lambda has=has: has
        )
        session = lcc.runtime.open(folder)
        session.feed("some words to read")
        logits.append(session.next_logits().copy())
        options = session.model.engine._options  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # it has no such entry
            asked.append(options.get_session_config_entry("session.x64quantprecision"))
    assert asked == ["1"]
    if adds_byte_products():  # else the first ones were cut off
        np.testing.assert_allclose(logits[0], logits[1], atol=1e-3)


def test_weights_that_were_in_4_bits_stay_what_they_are(tmp_path: Path) -> None:
    """Blocks that do not use all of their levels, too: rounded anew they would change."""
    packed, meant = gptq(DRAW, (48, 64))
    packed[".qweight"] &= 0x77777777  # levels 0 .. 7
    level = (packed[".qweight"].numpy()[:, None] >> np.arange(0, 32, 4)[:, None]) & 7
    zero = (packed[".qzeros"].numpy()[..., None] >> np.arange(0, 32, 4) & 15) + 1
    scale, zero = packed[".scales"].float().numpy(), zero.reshape(2, 48)
    meant = ((level.reshape(2, 32, 48) - zero[:, None]) * scale[:, None]).reshape(64, 48)
    save_file({f"x{suffix}": each for suffix, each in packed.items()}, tmp_path / "m.safetensors")
    page = {"quant_method": "gptq", "bits": 4}
    tensors = unpacked(safetensors_of(tmp_path / "m.safetensors"), page, "m")
    layer = torch.nn.Linear(64, 48, bias=False)
    layer._parameters["weight"] = torch.nn.Parameter(tensors["x.weight"], requires_grad=False)
    rows = {1: ("tokens", torch.export.Dim("tokens", min=1, max=8))}
    ports = Port("x", Role.HIDDEN), Port("y", Role.HIDDEN)
    x = torch.eye(64)[None, :8]
    program = export(layer, ("step",), [Input(ports[0], x, rows)], [ports[1]])
    for rounded_anew in (False, True):
        if rounded_anew:
            layer.weight.rounded = None
        model = to_onnx(program)
        assert lower_precision(model, "int4") == 1
        stored = {name: each.const_value.numpy() for name, each in model.graph.initializers.items()}
        (bits,) = (each for each in stored.values() if each.dtype == np.uint8)
        (scales,) = (each for name, each in stored.items() if name.endswith(".scales"))
        (offsets,) = (each for name, each in stored.items() if name.endswith(".offsets"))
        levels = np.stack((bits & 15, bits >> 4), axis=-1).reshape(48, 2, 32)
        made = (levels - 8.0) * scales[..., None] + offsets.T[..., None]
        error = np.abs(made.reshape(48, 64) - meant.T).max()
        assert (error > 1e-4) == rounded_anew, error


KINDS_OF_LINEAR = {
    "gptq": (gptq, {}, {"quant_method": "gptq", "bits": 4}),
    "gptq, 8 bits": (gptq, {"bits": 8}, {"quant_method": "gptq", "bits": 8}),
    "int8": (
        compressed_int8,
        {},
        {"quant_method": "compressed-tensors", "format": "int-quantized"},
    ),
}


@pytest.mark.parametrize("case", KINDS_OF_LINEAR)
def test_given_is_what_the_checkpoint_has(case: str, tmp_path: Path) -> None:
    """Products with rows of the identity are the weights: rounding inputs leaves those alone."""
    write, how, page = KINDS_OF_LINEAR[case]
    packed, meant = write(np.random.default_rng(7), (48, 64), **how)
    save_file({f"x{suffix}": each for suffix, each in packed.items()}, tmp_path / "m.safetensors")
    tensors = unpacked(safetensors_of(tmp_path / "m.safetensors"), page, "m")
    layer = torch.nn.Linear(64, 48, bias=False)
    layer._parameters["weight"] = torch.nn.Parameter(tensors["x.weight"], requires_grad=False)
    rows = {1: ("tokens", torch.export.Dim("tokens", min=1, max=99))}
    ports = Port("x", Role.HIDDEN), Port("y", Role.HIDDEN)
    program = export(layer, ("step",), [Input(ports[0], torch.eye(64)[None], rows)], [ports[1]])
    model = to_onnx(program)
    assert lower_precision(model, "given") == 1
    assert "MatMulNBits" in Counter(node.op_type for node in model.graph)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    (y,) = session.run(None, {"x": np.eye(64, dtype=np.float32)[None]})
    np.testing.assert_allclose(y[0].T, meant, rtol=1e-5, atol=1e-5 * np.abs(meant).max())


def test_given_leaves_what_was_not_rounded(tmp_path: Path) -> None:
    layer = torch.nn.Linear(64, 48)
    rows = {1: ("tokens", torch.export.Dim("tokens", min=1, max=99))}
    ports = Port("x", Role.HIDDEN), Port("y", Role.HIDDEN)
    program = export(layer, ("step",), [Input(ports[0], torch.eye(64)[None], rows)], [ports[1]])
    assert lower_precision(to_onnx(program), "given") == 0


def test_a_target_without_it_refuses(tiny_folder: Path, tmp_path: Path, cache: CacheConfig) -> None:
    config = CompileConfig(cache=cache, target="reference", precision="int4")
    with pytest.raises(ConfigError, match="precision is int4, target reference has fp32"):
        compile_model(tiny_folder, tmp_path / "m.lcc", config)
