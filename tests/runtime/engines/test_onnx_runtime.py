import ctypes
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lcc.artifact.manifest import Manifest, ModelEntry, ProgramEntry
from lcc.artifact.schedule import Schedule, TensorSpec, TextFacts
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import ArtifactError, TargetError
from lcc.ir.roles import Role
from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine, OnnxRuntimeRunner
from lcc.testing.listed import listed_files

HQ, HKV, D = 4, 2, 16
WHAT = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}
CACHE = (1, HKV, "S", D)


def tensor(name: str, *shape: int | str, dtype: str = "float32", role: Role = Role.HIDDEN):
    return TensorSpec(name=name, role=role, dtype=dtype, shape=shape)


STEP = ProgramEntry(
    file="step.onnx",
    inputs=[
        tensor("x", 1, "Q", HQ * D),
        tensor("used", 1, dtype="int32"),
        tensor("key_0", *CACHE, role=Role.KEY),
        tensor("value_0", *CACHE, role=Role.VALUE),
    ],
    outputs=[
        tensor("hidden", 1, "Q", HQ * D),
        tensor("key_0_out", *CACHE, role=Role.KEY),
        tensor("value_0_out", *CACHE, role=Role.VALUE),
    ],
    updates={"key_0_out": "key_0", "value_0_out": "value_0"},
)
ADD = ProgramEntry(
    file="add.onnx",
    inputs=[tensor("a", "n", 3), tensor("b", "n", 3)],
    outputs=[tensor("sum", "n", 3), tensor("difference", "n", 3)],
)


def save(folder, program: ProgramEntry, nodes: list, constants: dict) -> None:
    def infos(tensors):
        return [helper.make_tensor_value_info(t.name, WHAT[t.dtype], t.shape) for t in tensors]

    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(
        nodes, "g", infos(program.inputs), infos(program.outputs), initializers
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=10), folder / program.file)


def write_programs(folder) -> None:
    """A step whose keys and values are the first columns of x, and a program without a cache."""
    node, half = helper.make_node, HKV * D
    nodes = [
        node("Slice", ["x", "zero", "half", "two"], ["kv"]),
        node("Shape", ["x"], ["length"], start=1, end=2),
        node("Cast", ["length"], ["q32"], to=TensorProto.INT32),
        node("Add", ["used", "q32"], ["total1"]),
        node("Sub", ["total1", "one"], ["last"]),
        node("Squeeze", ["total1"], ["total"]),
        node(
            "GroupQueryAttention",
            ["x", "kv", "kv", "key_0", "value_0", "last", "total"],
            ["hidden", "key_0_out", "value_0_out"],
            domain="com.microsoft",
            num_heads=HQ,
            kv_num_heads=HKV,
        ),
    ]
    constants = {
        "zero": np.array([0]),
        "half": np.array([half]),
        "two": np.array([2]),
        "one": np.array([1], np.int32),
    }
    save(folder, STEP, nodes, constants)
    nodes = [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])]
    save(folder, ADD, nodes, {})


def manifest(target: str = "onnxruntime:cpu", **programs: ProgramEntry) -> Manifest:
    model = ModelEntry(name="m", architecture="M", hidden_size=1, vocab_size=1, layers=[])
    return Manifest(
        made_by="a test",
        target=target,
        model=model,
        cache=CacheConfig(),
        policy=PolicyConfig(),
        constants={},
        counters={},
        groups=(),
        buffers=(),
        schedule=Schedule(read=(), logits=(), nll=()),
        text=TextFacts(),
        programs={"prefill_chunk": STEP, "decode": STEP, "add": ADD} | programs,
        passes=[],
        memory=[],
    )


def listed(folder: str | Path, manifest: Manifest) -> Manifest:
    """The same with the files that lie there."""
    return msgspec.structs.replace(manifest, files=listed_files(folder))


@pytest.fixture
def engine(tmp_path):
    write_programs(tmp_path)
    return OnnxRuntimeEngine(tmp_path, listed(tmp_path, manifest()), threads=1)


def expected_step(x: np.ndarray, used: int, key: list, value: list) -> np.ndarray:
    """Attention by loops; appends to key and value, per head lists of rows."""
    hidden = np.zeros_like(x[0])
    for j, row in enumerate(x[0]):
        for head in range(HKV):
            key[head].append(row[head * D : (head + 1) * D])
            value[head].append(row[head * D : (head + 1) * D])
        for head in range(HQ):
            mine, q = head // (HQ // HKV), row[head * D : (head + 1) * D]
            logits = [float(q @ k) / D**0.5 for k in key[mine][: used + j + 1]]
            weights = np.exp(np.array(logits) - max(logits))
            mixed = sum(w * v for w, v in zip(weights / weights.sum(), value[mine], strict=True))
            hidden[j, head * D : (head + 1) * D] = mixed
    return hidden


def test_steps_write_the_cache_in_place(engine):
    random = np.random.default_rng(0)
    buffers = {name: np.zeros((1, HKV, 40, D), np.float32) for name in ("key_0", "value_0")}
    chunk, decode = engine.runner("prefill_chunk"), engine.runner("decode")
    chunk.bind(buffers)
    decode.bind(buffers)
    key, value = ([[] for _ in range(HKV)] for _ in range(2))
    used = 0
    for size in (7, 1, 12, 1, 1, 3, 12):
        x = random.normal(size=(1, size, HQ * D)).astype(np.float32)
        hidden = np.zeros_like(x)
        arrays = {"x": x, "used": np.array([used], np.int32), "hidden": hidden}
        (decode if size == 1 else chunk)(arrays)
        np.testing.assert_allclose(hidden[0], expected_step(x, used, key, value), atol=1e-5)
        used += size
        np.testing.assert_allclose(buffers["key_0"][0, :, :used], np.array(key), atol=1e-6)
        assert not buffers["key_0"][0, :, used:].any()
        assert not buffers["value_0"][0, :, used:].any()


def test_bound_addresses_are_those_of_the_buffers(engine):
    buffers = {name: np.zeros((1, HKV, 8, D), np.float32) for name in ("key_0", "value_0")}
    runner = engine.runner("decode")
    runner.bind(buffers)
    feeds = {"x": np.ones((1, 1, HQ * D), np.float32), "used": np.array([0], np.int32)}
    runner(feeds)
    outputs = runner._binding.get_outputs()
    assert {output.data_ptr() for output in outputs} == {b.ctypes.data for b in buffers.values()}


def test_programs_of_one_file_share_a_session(engine):
    assert engine.runner("prefill_chunk")._session is engine.runner("decode")._session
    assert engine.runner("decode") is not engine.runner("decode")


def test_nothing_of_the_size_of_the_cache_is_copied(tmp_path):
    """512 MB of cache, steps of 1 and 64 tokens: memory grows by less than a tenth of it."""
    write_programs(tmp_path)
    code = """if True:
        import sys, time
        import numpy as np
        sys.path.insert(0, sys.argv[2])
        from test_onnx_runtime import HKV, HQ, D, listed, manifest
        from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine
        from lcc.runtime.stats import peak_rss_bytes
        engine = OnnxRuntimeEngine(sys.argv[1], listed(sys.argv[1], manifest()), threads=1)
        slots = (256 << 20) // (HKV * D * 4)
        cache = {n: np.ones((1, HKV, slots, D), np.float32) for n in ("key_0", "value_0")}
        runner = engine.runner("decode")
        runner.bind(cache)
        before, begin = peak_rss_bytes(), time.perf_counter()
        for used, size in ((0, 1), (1, 64), (65, 1), (66, 33)):
            x = np.ones((1, size, HQ * D), np.float32)
            runner({"x": x, "used": np.array([used], np.int32), "hidden": np.empty_like(x)})
        print((peak_rss_bytes() - before) >> 20, time.perf_counter() - begin)
    """
    here = textwrap.dedent(code), str(tmp_path), str(__file__).rsplit("/", 1)[0]
    grown, seconds = subprocess.check_output([sys.executable, "-c", *here], text=True).split()
    assert int(grown) < 51
    assert float(seconds) < 1  # four copies of 512 MB and back take longer


def full(value: float, rows: int = 2) -> np.ndarray:
    return np.full((rows, 3), value, np.float32)


def test_only_what_has_an_array_is_computed(engine):
    runner, total, difference = engine.runner("add"), full(0), full(0)
    arrays = {"a": full(5), "b": full(3)}
    runner(arrays | {"difference": difference})
    assert difference.tolist() == [[2] * 3] * 2
    assert len(runner._binding.get_outputs()) == 1
    runner(arrays | {"sum": total, "difference": difference})
    assert total.tolist() == [[8] * 3] * 2
    total[:] = 0
    runner({"a": full(1), "b": full(0), "difference": difference})  # the sum is not bound any more
    assert (total.max(), difference.max()) == (0, 1)


def test_bound_inputs_and_outputs_stay_bound_and_can_change(engine):
    runner = engine.runner("add")
    a, total = full(0), full(0)
    runner.bind({"a": a, "sum": total})
    a[:] = 1  # read when run, not when bound
    runner({"b": full(2)})
    assert total.tolist() == [[3] * 3] * 2
    other = full(0, 4)
    runner.bind({"a": full(7, 4), "sum": other})
    runner({"b": full(2, 4)})
    assert other.tolist() == [[9] * 3] * 4
    assert total.tolist() == [[3] * 3] * 2


def test_views_of_rows_are_the_memory_itself(engine):
    rows, out = np.arange(30, dtype=np.float32).reshape(10, 3), full(0, 10)
    engine.runner("add")({"a": rows[4:6], "b": full(100), "sum": out[7:9]})
    assert out[7:9].tolist() == [[112, 113, 114], [115, 116, 117]]
    assert not out[:7].any()
    assert not out[9:].any()


def test_an_update_is_written_to_what_is_given_for_its_input(tmp_path):
    """Whether the input is bound or given, and not where another array is named."""
    write_programs(tmp_path)
    add = ProgramEntry(
        file="add.onnx", inputs=ADD.inputs, outputs=ADD.outputs, updates={"sum": "a"}
    )
    engine = OnnxRuntimeEngine(tmp_path, listed(tmp_path, manifest(add=add)), threads=1)
    a, runner = full(1), engine.runner("add")
    runner({"a": a, "b": full(2)})
    assert a.tolist() == [[3] * 3] * 2
    runner.bind({"a": a})
    runner({"b": full(2)})
    assert a.tolist() == [[5] * 3] * 2
    other = full(0)
    runner({"b": full(2), "sum": other})
    assert (a.max(), other.max()) == (5, 7)


def test_runners_have_bindings_of_their_own(engine):
    first, second, one, two = engine.runner("add"), engine.runner("add"), full(0), full(0)
    first.bind({"a": full(1), "sum": one})
    second.bind({"a": full(10), "sum": two})
    for runner in (first, second):
        runner({"b": full(2)})
    assert (one.max(), two.max()) == (3, 12)


def test_many_threads_run_one_program(engine):
    """Each with a runner of its own; programs are loaded while others load them."""
    failed: list[int] = []

    def work(number: int) -> None:
        runner, total = engine.runner("add"), full(0)
        runner.bind({"a": full(number), "sum": total})
        for i in range(200):
            runner({"b": full(i)})
            if not (total == number + i).all():
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(engine._sessions) == 1


def test_buffers_are_aligned_and_of_the_host(engine):
    for role in (Role.KEY, Role.TOKENS):
        array = engine.zeros([3, 5], "float16", role)
        assert (array.shape, str(array.dtype), array.any()) == ((3, 5), "float16", False)
        assert array.ctypes.data % 64 == 0


SIGNATURES = {
    "an input more": ({"inputs": ADD.inputs[:1]}, "input b is not in the manifest"),
    "an input less": ({"inputs": [*ADD.inputs, tensor("c", 1)]}, "no input c, which the manifest"),
    "an output less": ({"outputs": [tensor("product", "n", 3)]}, "no output product, which"),
    "a dtype": (
        {"inputs": [ADD.inputs[0], tensor("b", "n", 3, dtype="int64")]},
        r"input b is tensor\(float\) \['n', 3\], the manifest says int64 \['n', 3\]",
    ),
    "a rank": ({"inputs": [ADD.inputs[0], tensor("b", 3)]}, r".*, the manifest says float32 \[3\]"),
    "a size": ({"outputs": [tensor("sum", "n", 4)]}, r"output sum is .*3.*, the manifest says .*4"),
    "a free size": ({"inputs": [ADD.inputs[0], tensor("b", "n", "m")]}, r"input b is .*'m'"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_program_that_is_not_what_the_manifest_says(engine, tmp_path, name):
    changes, words = SIGNATURES[name]
    parts = {"file": "add.onnx", "inputs": ADD.inputs, "outputs": ADD.outputs} | changes
    other = OnnxRuntimeEngine(
        tmp_path, listed(tmp_path, manifest(add=ProgramEntry(**parts))), threads=1
    )
    with pytest.raises(ArtifactError, match=rf"add\.onnx: {words}"):
        other.load_all()
    fewer = ProgramEntry(file="add.onnx", inputs=ADD.inputs, outputs=ADD.outputs[:1])
    OnnxRuntimeEngine(tmp_path, listed(tmp_path, manifest(add=fewer)), threads=1).load_all()


def test_what_is_loaded_does_not_need_its_file_any_more(engine, tmp_path):
    engine.load_all()
    for file in tmp_path.iterdir():
        file.unlink()
    total = full(0)
    engine.runner("add")({"a": full(1), "b": full(2), "sum": total})
    assert total.max() == 3


def test_mistakes_are_named(engine):
    runner = engine.runner("add")
    with pytest.raises(KeyError, match="no array for b"):
        runner({"a": np.zeros((2, 3), np.float32)})
    with pytest.raises(KeyError, match="c is no input or output"):
        runner.bind({"c": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="a: the array is not C-contiguous"):
        runner.bind({"a": np.zeros((3, 2), np.float32).T})


def test_files_and_targets_that_cannot_be(engine, tmp_path):
    (tmp_path / "add.onnx").write_bytes(b"\x08\x09")
    with pytest.raises(ArtifactError, match=r"add\.onnx: 2 bytes, the manifest says 175"):
        engine.runner("add")
    engine = OnnxRuntimeEngine(tmp_path, listed(tmp_path, manifest()), threads=1)
    with pytest.raises(ArtifactError, match=r"add\.onnx: ONNX Runtime cannot load it") as caught:
        engine.runner("add")
    assert "\n" not in str(caught.value)
    for target, message in {
        "tvm:llvm": 'target is "tvm:llvm", this engine runs onnxruntime:cpu',
        "onnxruntime:npu": "this engine runs",
        "onnxruntime:cuda": "target is onnxruntime:cuda, this ONNX Runtime has only",
    }.items():
        with pytest.raises(TargetError, match=message):
            OnnxRuntimeEngine(tmp_path, listed(tmp_path, manifest(target)))


def copies_program(name: str) -> ProgramEntry:
    """Adds up copies of its input."""
    return ProgramEntry(file=f"{name}.onnx", inputs=[ADD.inputs[0]], outputs=[tensor("sum", 1, 3)])


def growth_of_peak(folder: Path, *sizes: int) -> list[int]:
    """MB by which each of several programs raises the peak of one process; `sizes`: MB it takes."""
    node = helper.make_node
    for name, size in enumerate(sizes):
        nodes = [
            node("Tile", ["a", "often"], ["copies"]),
            node("ReduceSum", ["copies", "rows"], ["sum"], keepdims=1),
        ]
        constants = {"often": np.array([(size << 20) // 12, 1]), "rows": np.array([0])}
        save(folder, copies_program(f"{name}"), nodes, constants)
    code = """if True:
        import sys
        import numpy as np
        sys.path.insert(0, sys.argv[2])
        from test_onnx_runtime import copies_program, listed, manifest
        from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine
        from lcc.runtime.stats import peak_rss_bytes
        programs = {name: copies_program(name) for name in sys.argv[3:]}
        found = listed(sys.argv[1], manifest(**programs))
        engine = OnnxRuntimeEngine(sys.argv[1], found, threads=1)
        one = np.ones((1, 3), np.float32)
        peaks = [peak_rss_bytes() >> 20]
        for name in programs:
            engine.runner(name)({"a": one, "sum": np.empty_like(one)})
            peaks.append(peak_rss_bytes() >> 20)
        print(*np.diff(peaks))
    """
    arguments = [folder, Path(__file__).parent, *range(len(sizes))]
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return [int(size) for size in subprocess.check_output(command, text=True).split()]


def test_programs_share_one_arena(tmp_path):
    """What one program took serves the next: the second of two takes less than a tenth anew."""
    first, second = growth_of_peak(tmp_path, 96, 96)
    assert first > 80
    assert second < 9


def test_what_small_programs_took_serves_larger_ones(tmp_path):
    """The second and the third add what they have more than the first: the arena is one region."""
    _, second, third = growth_of_peak(tmp_path, 8, 24, 48)
    assert 30 < second + third < 50


class CopyingBinding:
    """Copies inputs of the host when they are bound, as ONNX Runtime does for a GPU."""

    def __init__(self, bound: dict) -> None:
        self.bound = bound

    def bind_input(self, name: str, device: str, number: int, dtype, shape, address: int) -> None:
        numbers = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape)
        self.bound[name] = numbers.copy()

    def bind_output(self, name: str, *more: object) -> None:
        pass


def test_inputs_that_are_copied_when_bound_are_bound_for_every_call():
    bound: dict[str, np.ndarray] = {}
    session = SimpleNamespace(
        io_binding=lambda: CopyingBinding(bound),
        run_with_iobinding=lambda binding: seen.append({n: a.max() for n, a in bound.items()}),
    )
    seen: list[dict] = []
    runner, a, total = OnnxRuntimeRunner(session, ADD, copies=True), full(0), full(0)
    runner.bind({"a": a, "sum": total})
    for number in (1, 2):
        a[:] = number
        runner({"b": full(7)})
    assert seen == [{"a": 1, "b": 7}, {"a": 2, "b": 7}]
