"""What weights and caches in fewer bits lose and gain: the tables of docs/precision.md.

python docs/measure/precision.py perplexity fp32.lcc int8.lcc int4.lcc --haystack ESSAYS
python docs/measure/precision.py rounding fp32.lcc --haystack ESSAYS
python docs/measure/precision.py steps fp32.lcc int8.lcc int4.lcc
python docs/measure/precision.py cache

`rounding` replaces one program of a float32 artifact by the same in another form, one at a time.
Times are of runs in turns in one process: compare within one run only.
"""

import argparse
import logging
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

import lcc.runtime
from lcc.artifact.folder import write_artifact
from lcc.artifact.manifest import read_manifest
from lcc.measure.evaluate.haystack import read_haystack
from lcc.measure.evaluate.perplexity import last_tokens, pieces
from lcc.targets.low_bits import BLOCK, columns_of_8_bits
from lcc.targets.onnx_precision import lower_precision

LENGTH, LAST, TEXTS = 1400, 768, 4
HEADS, KV_HEADS, SIZE, SLOTS, USED = 9, 3, 64, 2048, 1500


def perplexity(folder: Path, sentences: list[str]) -> float:
    """Of the last tokens of some texts of which nothing is evicted."""
    session = lcc.runtime.open(folder, threads=2, verify="size")
    texts = pieces(session.encode, sentences, LENGTH, TEXTS)
    return math.exp(statistics.mean(math.log(last_tokens(session, ids, LAST)) for ids in texts))


# Other forms of a program: each takes and gives a model whose weights are in it.


def ours(precision: str) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """As lcc compiles it."""

    def change(model: onnx.ModelProto) -> onnx.ModelProto:
        new = ir.from_proto(model)
        lower_precision(new, precision)  # type: ignore[arg-type]  # a name of ours
        return ir.to_proto(new)

    return change


def n_bits(
    bits: int, *, symmetric: bool = True, operator: str = "MatMul"
) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """ONNX Runtime's own quantizer, in blocks of 32."""

    def change(model: onnx.ModelProto) -> onnx.ModelProto:
        quantizer = MatMulNBitsQuantizer(
            _untransposed(model),
            bits=bits,
            block_size=BLOCK,
            is_symmetric=symmetric,
            accuracy_level=4,
            op_types_to_quantize=(operator,),
            quant_axes=(("MatMul", 0), ("Gather", 1)),
        )
        quantizer.process()
        return quantizer.model.model

    return change


def per_chunk(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime's dynamic quantizer: a scale a column of weights, one for all inputs."""
    with tempfile.TemporaryDirectory() as place:
        onnx.save(model, f"{place}/in.onnx", save_as_external_data=True, location="in.bin")
        quantize_dynamic(
            f"{place}/in.onnx",
            f"{place}/out.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(f"{place}/out.onnx")


def weights_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights rounded as in `int8`, products in float32."""
    new = ir.from_proto(model)
    for node in new.graph:
        value = node.inputs[1] if node.op_type == "MatMul" else None
        if value is not None and value.const_value is not None:
            levels, scales = columns_of_8_bits(value.const_value.numpy())
            value.const_value = ir.tensor(levels * scales, name=value.name)
    return ir.to_proto(new)


def _untransposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The LM head's weights as a constant, which the quantizer asks for."""
    new = ir.from_proto(model)
    for node in list(new.graph):
        value = node.inputs[1] if node.op_type == "MatMul" else None
        producer = None if value is None else value.producer()
        if producer is None or producer.op_type != "Transpose":
            continue
        table = producer.inputs[0]
        if table is None or table.const_value is None:
            continue
        array = np.ascontiguousarray(table.const_value.numpy().T)
        constant = ir.Value(name="head", const_value=ir.tensor(array, name="head"))
        new.graph.register_initializer(constant)
        node.replace_input_with(1, constant)
    return ir.to_proto(new)


FORMS: dict[str, tuple[str, Callable[[onnx.ModelProto], onnx.ModelProto]]] = {
    "layers: int4": ("step", ours("int4")),
    "layers: 4 bits, ONNX Runtime's, even about zero": ("step", n_bits(4)),
    "layers: 4 bits, ONNX Runtime's, zero points": ("step", n_bits(4, symmetric=False)),
    "layers: 8 bits, ONNX Runtime's": ("step", n_bits(8)),
    "layers: int8": ("step", ours("int8")),
    "layers: 8 bits, weights alone": ("step", weights_alone),
    "layers: 8 bits, one scale a chunk": ("step", per_chunk),
    "head: 8 bits, as in int4 and int8": ("head", ours("int4")),
    "head: 4 bits, ONNX Runtime's": ("head", n_bits(4)),
    "embedding: 4 bits, ONNX Runtime's": ("step", n_bits(4, operator="Gather")),
}


def changed(folder: Path, program: str, change: Callable, output: Path) -> None:
    """The same artifact with one program in another form."""

    def fill(new: Path) -> object:
        for file in folder.iterdir():
            if file.name not in ("manifest.json", f"{program}.onnx"):
                shutil.copy(file, new / file.name)
        model = change(onnx.load(folder / f"{program}.onnx"))
        path = new / f"{program}.onnx"
        onnx.save(model, path, save_as_external_data=True, location=f"{program}.bin")
        return msgspec.structs.replace(read_manifest(folder), files={})

    write_artifact(output, fill)  # type: ignore[arg-type]  # it gives a manifest


def session(
    path: Path | bytes, threads: int, *, exact_bytes: bool = False
) -> onnxruntime.InferenceSession:
    """As the runtime makes one; `exact_bytes`, as on a CPU without VNNI."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_mem_pattern = threads, False
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.x64quantprecision", str(int(exact_bytes)))
    source = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def without_offsets(path: Path) -> bytes:
    """An `int4` step without the product that adds what each block is off zero: it costs time."""
    model = ir.from_proto(onnx.load(path))
    for node in list(model.graph):
        more = node.inputs[1].producer() if node.op_type == "Add" and node.inputs[1] else None
        offsets = None if more is None or more.op_type != "MatMul" else more.inputs[1]
        if offsets is not None and str(offsets.name).endswith(".offsets"):
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
    RemoveUnusedNodesPass()(model)
    return bytes(ir.to_proto(model).SerializeToString())


def in_turns(title: str, runs: dict[str, Callable[[], object]], repetitions: int) -> None:
    """Print the median time of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repetitions):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    shown = ", ".join(f"{n} {statistics.median(s) * 1e3:.2f}" for n, s in seconds.items())
    print(f"{title}, ms: {shown}", flush=True)


def steps(folders: list[Path], threads: int, exact_bytes: bool) -> None:
    """The step behind `USED` entries, and the head."""
    draw = np.random.default_rng(0)
    layers = read_manifest(folders[0]).model.layers
    caches = {
        f"{kind}_{i}": draw.standard_normal((1, e.kv_heads, SLOTS, e.head_size)).astype("f4")
        for i, e in enumerate(layers)
        for kind in ("key", "value")
    }
    hidden = read_manifest(folders[0]).model.hidden_size
    all_steps = {
        f.name: session(f / "step.onnx", threads, exact_bytes=exact_bytes) for f in folders
    }
    heads = {f.name: session(f / "head.onnx", threads) for f in folders}
    for folder in folders:
        if read_manifest(folder).precision == "int4":
            alone = without_offsets(folder / "step.onnx")
            all_steps[f"{folder.name} without offsets"] = session(alone, threads)

    def step(loaded: onnxruntime.InferenceSession, count: int) -> Callable[[], object]:
        feeds = caches | {
            "tokens": np.arange(count)[None],
            "positions": np.arange(USED, USED + count)[None],
            "used": np.array([USED], np.int32),
        }
        if any(each.name == "query_rows" for each in loaded.get_inputs()):
            feeds["query_rows"] = np.zeros(1, np.int64)
        binding = loaded.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name in caches:  # in place
            array = caches[name]
            binding.bind_output(
                f"{name}_out", "cpu", 0, array.dtype, array.shape, array.ctypes.data
            )
        binding.bind_output("hidden")
        return lambda: (loaded.run_with_iobinding(binding), feeds)

    def head(loaded: onnxruntime.InferenceSession, rows: int) -> Callable[[], object]:
        feeds = {"hidden": np.ones((rows, hidden), np.float32), "next_tokens": np.zeros(rows, int)}
        return lambda: loaded.run(["logits", "nll"], feeds)

    for count, repetitions in ((1, 40), (256, 6)):
        runs = {name: step(loaded, count) for name, loaded in all_steps.items()}
        in_turns(f"step, {count} tokens behind {USED}", runs, repetitions)
    for rows in (1, 32, 64):
        in_turns(f"head, {rows} rows", {n: head(h, rows) for n, h in heads.items()}, 20)


def attention(dtype: str) -> bytes:
    """One GroupQueryAttention over a cache of float32, float16 or int8."""
    kinds = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int8": TensorProto.INT8}
    cache = kinds[dtype]
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    shape = [1, KV_HEADS, SLOTS, SIZE]
    tensor = helper.make_tensor_value_info
    inputs = [
        tensor("q", kind, [1, "n", HEADS * SIZE]),
        tensor("k", kind, [1, "n", KV_HEADS * SIZE]),
        tensor("v", kind, [1, "n", KV_HEADS * SIZE]),
        tensor("key", cache, shape),
        tensor("value", cache, shape),
        tensor("last", TensorProto.INT32, [1]),
        tensor("total", TensorProto.INT32, []),
    ]
    names = [each.name for each in inputs]
    attributes: dict = {"num_heads": HEADS, "kv_num_heads": KV_HEADS}
    constants = []
    if dtype == "int8":
        constants = [helper.make_tensor("scale", TensorProto.FLOAT, [1], [4 / 127])]
        names += [""] * 5 + ["scale", "scale"]
        attributes |= dict.fromkeys(("k_quant_type", "v_quant_type"), "PER_TENSOR")
        attributes["kv_cache_bit_width"] = 8
    outs = [
        tensor("out", kind, [1, "n", HEADS * SIZE]),
        tensor("key_out", cache, shape),
        tensor("value_out", cache, shape),
    ]
    node = helper.make_node(
        "GroupQueryAttention", names, [o.name for o in outs], domain="com.microsoft", **attributes
    )
    graph = helper.make_graph([node], "attention", inputs, outs, constants)
    domains = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def caches(threads: int) -> None:
    """One layer behind `USED` entries, and how far what it gives is from float32's."""
    draw = np.random.default_rng(0)
    exact = {n: draw.standard_normal((1, KV_HEADS, SLOTS, SIZE)) for n in ("key", "value")}
    for count, repetitions in ((1, 200), (256, 20)):
        heads = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}
        new = {n: draw.standard_normal((1, count, h * SIZE)) for n, h in heads.items()}
        runs, results = {}, {}
        for dtype in ("float32", "float16", "int8"):
            loaded, binding = session(attention(dtype), threads), None
            small = np.float16 if dtype == "float16" else np.float32
            held = {
                n: np.rint(x / (4 / 127)).clip(-127, 127) if dtype == "int8" else x
                for n, x in exact.items()
            }
            feeds = {n: x.astype(small) for n, x in new.items()}
            feeds |= {n: np.ascontiguousarray(x.astype(dtype)) for n, x in held.items()}
            feeds |= {
                "last": np.array([USED + count - 1], np.int32),
                "total": np.array(USED + count, np.int32),
            }
            out = np.empty((1, count, HEADS * SIZE), small)
            binding = loaded.io_binding()
            for name, x in feeds.items():
                binding.bind_input(name, "cpu", 0, x.dtype, x.shape, x.ctypes.data)
            for name, x in {
                "out": out, "key_out": feeds["key"], "value_out": feeds["value"]
            }.items():  # fmt: skip
                binding.bind_output(name, "cpu", 0, x.dtype, x.shape, x.ctypes.data)
            runs[dtype] = lambda s=loaded, b=binding, f=feeds: (s.run_with_iobinding(b), f)
            results[dtype] = out
        in_turns(f"attention, {count} tokens behind {USED}", runs, repetitions)
        off = {n: np.abs(x.astype("f4") - results["float32"]).max() for n, x in results.items()}
        print("  off by at most:", ", ".join(f"{n} {x:.1e}" for n, x in off.items()))


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["perplexity", "rounding", "steps", "cache"])
    parser.add_argument("artifacts", nargs="*", type=Path)
    parser.add_argument("--haystack", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--exact-bytes", action="store_true", help="of `steps`, as without VNNI")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.what == "cache":
        caches(options.threads)
    elif options.what == "steps":
        steps(options.artifacts, options.threads, options.exact_bytes)
    elif options.what == "perplexity":
        sentences = read_haystack(options.haystack)
        for folder in options.artifacts:
            print(f"{folder.name}: {perplexity(folder, sentences):.2f}", flush=True)
    else:
        sentences = read_haystack(options.haystack)
        (folder,) = options.artifacts
        whole = perplexity(folder, sentences)
        print(f"float32: {whole:.2f}", flush=True)
        for name, (program, change) in FORMS.items():
            with tempfile.TemporaryDirectory() as place:
                changed(folder, program, change, Path(place, "m.lcc"))
                now = perplexity(Path(place, "m.lcc"), sentences)
            print(f"{name}: {now:.2f}, {100 * (now / whole - 1):+.2f} %", flush=True)


if __name__ == "__main__":
    main()
