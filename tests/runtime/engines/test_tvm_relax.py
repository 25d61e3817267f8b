"""The engine of tvm:cpu: the caller's buffers where they lie, and every misuse an error."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from lcc.artifact import cpu
from lcc.artifact.manifest import Manifest, ModelEntry
from lcc.artifact.program_entry import program_entries
from lcc.artifact.schedule import Schedule, TextFacts
from lcc.artifact.weights_index import weights_files
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import ArtifactError, CacheError, LccError, TargetError
from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.runtime.engines.host_array import zeros
from lcc.runtime.engines.tvm_relax import TvmEngine
from lcc.targets.tvm_cpu import TvmCpu
from lcc.testing.listed import listed_files
from lcc.testing.tvm_results import returned

WEIGHTS_FILE, INDEX_FILE = weights_files("tvm:cpu")

HQ, HKV, D = 4, 2, 16


class Step(nn.Module):
    """A projection, then attention over a cache whose keys and values are the first columns."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(HQ * D, HQ * D, bias=False)
        generator = torch.Generator().manual_seed(0)
        self.projection.weight.data.normal_(generator=generator).mul_(0.1)
        self.requires_grad_(False)

    def forward(self, x: Tensor, key_0: Tensor, value_0: Tensor, used: Tensor) -> tuple:
        q = self.projection(x).view(1, -1, HQ, D)
        k = q[:, :, :HKV] * 1.0
        numbers = (0.25, 0, 0.0, -1)
        return torch.ops.lcc.cached_attention(q, k, k, key_0, value_0, used, *numbers)


class Add(nn.Module):
    """A sum and a difference."""

    def forward(self, a: Tensor, b: Tensor) -> tuple:
        return a + b, a - b


def programs() -> list[Program]:
    length, slots, n = ("Q", Dim("length", max=16)), ("slots", Dim("slots", min=2)), ("n", Dim("n"))
    cache = torch.zeros(1, HKV, 20, D)
    inputs = [
        Input(Port("x", Role.HIDDEN), torch.zeros(1, 7, HQ * D), {1: length}),
        Input(Port("key_0", Role.KEY), cache, {2: slots}),
        Input(Port("value_0", Role.VALUE), cache, {2: slots}),
        Input(Port("used", Role.COUNTER), torch.zeros(1, dtype=torch.int32)),
    ]
    outputs = [
        Port("out", Role.HIDDEN),
        Port("key_0_out", Role.KEY),
        Port("value_0_out", Role.VALUE),
    ]
    updates = {"key_0_out": "key_0", "value_0_out": "value_0"}
    step = export(Step(), ("prefill_chunk",), inputs, outputs, updates)
    two = [Input(Port(name, Role.HIDDEN), torch.zeros(4, 3), {0: n}) for name in ("a", "b")]
    sums = [Port("sum", Role.HIDDEN), Port("difference", Role.HIDDEN)]
    return [step, export(Add(), ("add",), two, sums)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, target = tmp_path_factory.mktemp("tvm"), TvmCpu()
    made = programs()
    files = target.build(made, folder)
    manifest = Manifest(
        made_by="a test",
        target="tvm:cpu",
        cpu=target.cpu,
        model=ModelEntry(name="m", architecture="M", hidden_size=1, vocab_size=1, layers=[]),
        cache=CacheConfig(),
        policy=PolicyConfig(),
        constants={},
        counters={},
        groups=(),
        buffers=(),
        schedule=Schedule(read=(), logits=(), nll=()),
        text=TextFacts(),
        programs=program_entries(made, files),
        passes=[],
        memory=[],
    )
    (folder / "test.json").write_bytes(msgspec.json.encode(manifest))
    return folder


def manifest_of(folder: Path) -> Manifest:
    manifest = msgspec.json.decode((folder / "test.json").read_bytes(), type=Manifest)
    return msgspec.structs.replace(manifest, files=listed_files(folder))


@pytest.fixture
def engine(folder: Path) -> TvmEngine:
    return TvmEngine(folder, manifest_of(folder), threads=2)


def drawn(*shape: int) -> np.ndarray:
    array = zeros(shape)
    array[...] = np.random.default_rng(sum(shape)).normal(size=shape)
    return array


def test_results_are_let_go(engine: TvmEngine) -> None:
    """A layer has a runner of its own: what each keeps of its last call is paid for in each."""
    runner = engine.runner("prefill_chunk")
    results = returned(runner)
    runner.bind({name: zeros([1, HKV, 40, D]) for name in ("key_0", "value_0")})
    x, count, out = drawn(1, 3, HQ * D), np.array([0], np.int32), zeros([1, 3, HQ, D])
    runner({"x": x, "used": count, "out": out})
    holders = sys.getrefcount(results[0])
    assert holders == 2, "the list of them, and the argument of the question"


def test_steps_write_the_cache_in_place(engine: TvmEngine) -> None:
    """And nothing behind it; the tensors that come back are the caller's own memory."""
    keys, values, runner = (
        zeros([1, HKV, 40, D]),
        zeros([1, HKV, 40, D]),
        engine.runner("prefill_chunk"),
    )
    keys[...] = values[...] = 7
    runner.bind({"key_0": keys, "value_0": values})
    results = returned(runner)
    module, used = Step(), 0
    wanted = torch.full((1, HKV, 40, D), 7.0), torch.full((1, HKV, 40, D), 7.0)
    for size in (7, 1, 12, 1, 1, 3, 12):
        x, count, got = drawn(1, size, HQ * D), np.array([used], np.int32), zeros([1, size, HQ, D])
        runner({"x": x, "used": count, "out": got})
        out, *wanted = module(torch.from_numpy(x), *wanted, torch.from_numpy(count))
        used += size
        np.testing.assert_allclose(got, out, atol=1e-6)
        for cache, other in zip((keys, values), wanted, strict=True):
            np.testing.assert_allclose(cache[:, :, :used], other[:, :, :used], atol=1e-6)
            assert (cache[:, :, used:] == 7).all()
    places = [np.from_dlpack(results[-1][place]).ctypes.data for place in (1, 2)]
    assert places == [keys.ctypes.data, values.ctypes.data]


LARGE_CACHE = """
import sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from test_tvm_relax import HKV, HQ, D, Path, TvmEngine, manifest_of, zeros
from lcc.runtime.stats import peak_rss_bytes

folder = Path(sys.argv[1])
runner = TvmEngine(folder, manifest_of(folder), threads=1).runner("prefill_chunk")
caches = [zeros([1, HKV, (256 << 20) // (HKV * D * 4), D]) for _ in range(2)]
for cache in caches:
    cache[...] = 1
runner.bind(dict(zip(("key_0", "value_0"), caches)))
before, used = peak_rss_bytes(), 0
for size in (1, 16, 1, 9):
    runner({"x": np.ones((1, size, HQ * D), np.float32), "used": np.array([used], np.int32)})
    used += size
print(peak_rss_bytes() - before)
"""


def test_nothing_of_the_size_of_the_cache_is_copied(folder: Path) -> None:
    """512 MB of cache: memory grows by less than a tenth of it."""
    command = [sys.executable, "-c", LARGE_CACHE, folder, Path(__file__).parent]
    assert int(subprocess.check_output(command, text=True)) < 51e6


def test_only_the_runtime_is_loaded(folder: Path) -> None:
    """No compiler, no TVM in Python, and no torch even where there is one."""
    code = """if True:
        import sys, msgspec
        from pathlib import Path
        from lcc.artifact.manifest import Manifest
        from lcc.runtime.engines.tvm_relax import TvmEngine
        from lcc.testing.listed import listed_files
        folder = Path(sys.argv[1])
        manifest = msgspec.json.decode((folder / "test.json").read_bytes(), type=Manifest)
        manifest = msgspec.structs.replace(manifest, files=listed_files(folder))
        TvmEngine(folder, manifest).load_all()
        print([name for name in ("torch", "tvm", "onnxruntime") if name in sys.modules])
        print("libtvm_compiler" in Path("/proc/self/maps").read_text())
    """
    output = subprocess.check_output([sys.executable, "-c", code, folder], text=True)
    assert output.split() == ["[]", "False"]


def full(value: float, rows: int = 2) -> np.ndarray:
    array = zeros([rows, 3])
    array[...] = value
    return array


def test_bound_inputs_and_outputs_stay_bound_and_can_change(engine: TvmEngine) -> None:
    runner, difference = engine.runner("add"), np.zeros((4, 3), np.float32)
    a, total = full(0), full(0)
    runner.bind({"a": a, "sum": total})
    a[...] = 1  # read when run, not when bound
    runner({"b": full(2)})
    assert total.tolist() == [[3] * 3] * 2
    other = full(0, 4)
    runner.bind({"a": full(7, 4), "sum": other})
    runner({"b": full(2, 4), "difference": difference})
    assert difference.tolist() == [[5] * 3] * 4
    assert other.tolist() == [[9] * 3] * 4
    assert total.tolist() == [[3] * 3] * 2


def test_an_update_is_written_to_what_is_given_for_its_input(folder: Path) -> None:
    manifest = manifest_of(folder)
    add = msgspec.structs.replace(manifest.programs["add"], updates={"sum": "a"})
    programs = manifest.programs | {"add": add}
    engine = TvmEngine(folder, msgspec.structs.replace(manifest, programs=programs), threads=1)
    runner, rows = engine.runner("add"), np.ones((4, 3), np.float32)
    runner({"a": rows[1:3], "b": full(2)})  # where vectors cannot be loaded: it is copied, and back
    assert rows.tolist() == [[1] * 3, [3] * 3, [3] * 3, [1] * 3]
    a, other = full(1), full(0)
    runner.bind({"a": a})
    runner({"b": full(2)})
    assert a.tolist() == [[3] * 3] * 2
    runner({"b": full(2), "sum": other})
    assert (a.max(), other.max()) == (3, 5)


def test_a_result_that_is_not_what_the_manifest_says_is_refused(folder: Path) -> None:
    """NumPy would repeat it, or say so in its own words."""
    manifest = manifest_of(folder)
    add = manifest.programs["add"]
    one = msgspec.structs.replace(add.outputs[0], shape=["rows", "n", 3])
    add = msgspec.structs.replace(add, outputs=[one, *add.outputs[1:]])
    programs = manifest.programs | {"add": add}
    engine = TvmEngine(folder, msgspec.structs.replace(manifest, programs=programs), threads=1)
    with pytest.raises(
        CacheError, match=r"sum came as float32 \[2, 3\], wanted float32 \[4, 2, 3\]"
    ):
        engine.runner("add")({"a": full(1), "b": full(2), one.name: zeros([4, 2, 3])})


def test_many_threads_run_one_machine(engine: TvmEngine) -> None:
    """It runs one program at a time; runners have arrays of their own."""
    failed: list[int] = []

    def work(number: int) -> None:
        runner, total = engine.runner("add"), full(0)
        runner.bind({"a": full(number), "sum": total})
        for i in range(100):
            runner({"b": full(i)})
            if not (total == number + i).all():
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def misaligned(*shape: int) -> np.ndarray:
    raw = zeros([int(np.prod(shape)) + 1])
    return raw[1:].reshape(shape)


def test_what_is_fed_may_lie_anywhere(engine: TvmEngine) -> None:
    """It is small, and copied where vectors cannot be loaded; a view that is not whole is not."""
    a = misaligned(33, 3)
    a[...] = np.arange(99).reshape(33, 3)
    a.flags.writeable = False
    got = misaligned(33, 3)
    engine.runner("add")({"a": a, "b": np.ones((33, 3), np.float32), "sum": got})
    assert (got == a + 1).all()
    with pytest.raises(CacheError, match="a: the array is not C-contiguous"):
        engine.runner("add")({"a": np.ones((3, 4), np.float32).T, "b": a})


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (misaligned(1, HKV, 8, D), "wanted a multiple of 64 bytes"),
        (zeros([1, HKV, 8, D], np.float64), "dtype float64, wanted float32"),
        (zeros([1, HKV + 1, 8, D]), r"shape \[1, 3, 8, 16\], wanted \[1, 2, 'slots', 16\]"),
        (zeros([1, HKV, 8]), "wanted"),
        (zeros([1, HKV, 16, D])[:, :, ::2], "not C-contiguous"),
        (torch.zeros(1, HKV, 8, D), "Tensor, wanted a numpy array"),
        ("text", "str, wanted a numpy array"),
    ],
    ids=str,
)
def test_foreign_buffers_are_errors_and_no_crash(
    engine: TvmEngine, array: np.ndarray, words: str
) -> None:
    with pytest.raises(CacheError, match=f"key_0: .*{words}"):
        engine.runner("prefill_chunk").bind({"key_0": array})


def test_mistakes_are_named(engine: TvmEngine) -> None:
    runner = engine.runner("prefill_chunk")
    runner.bind({"key_0": zeros([1, HKV, 8, D]), "value_0": zeros([1, HKV, 9, D])})
    feeds = {"x": drawn(1, 3, HQ * D), "used": np.array([0], np.int32)}
    with pytest.raises(CacheError, match="slots is 9 in value_0, wanted 8"):
        runner(feeds)
    with pytest.raises(KeyError, match="no array for used"):
        runner({"x": feeds["x"]})
    with pytest.raises(KeyError, match="c is no input or output"):
        runner.bind({"c": zeros([1])})
    runner.bind({"value_0": zeros([1, HKV, 8, D])})
    for used in (6, -1):  # the last entry would lie behind the cache, or before it
        with pytest.raises(CacheError, match="do not fit in the cache"):
            runner(feeds | {"used": np.array([used], np.int32)})


@pytest.mark.parametrize("kind", [ValueError, TypeError, IndexError, RuntimeError])
def test_what_a_kernel_refuses_is_named(
    engine: TvmEngine, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """TVM's errors are of many types: of an index of weights with other shapes, a ValueError."""

    def refuse(*_: object) -> None:
        raise kind("Traceback of C++\n  expected to be compact array")

    runner = engine.runner("prefill_chunk")
    runner.bind({name: zeros([1, HKV, 8, D]) for name in ("key_0", "value_0")})
    monkeypatch.setattr(runner, "_function", refuse)
    with pytest.raises(
        CacheError, match=r"^programs_[0-9a-f]+\.so:   expected to be compact array$"
    ):
        runner({"x": drawn(1, 3, HQ * D), "used": np.array([0], np.int32)})


def test_an_error_without_words_is_named_by_its_type(
    engine: TvmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    runner = engine.runner("prefill_chunk")
    runner.bind({name: zeros([1, HKV, 8, D]) for name in ("key_0", "value_0")})
    monkeypatch.setattr(runner, "_function", refuse)
    with pytest.raises(CacheError, match=r"^programs_[0-9a-f]+\.so: MemoryError$"):
        runner({"x": drawn(1, 3, HQ * D), "used": np.array([0], np.int32)})


def test_files_and_machines_that_cannot_be(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(folder)

    def refused(kind: type[LccError], words: str, **changes: str) -> None:
        here = msgspec.structs.replace(manifest, files=listed_files(tmp_path), **changes)
        with pytest.raises(kind, match=words):
            TvmEngine(tmp_path, here).runner("prefill_chunk")

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    library = tmp_path / manifest.programs["add"].file
    content = library.read_bytes()
    library.write_bytes(b"nonsense")
    refused(ArtifactError, "TVM cannot load it")
    library.write_bytes(content)
    refused(TargetError, 'target is "onnxruntime:cpu", this engine runs', target="onnxruntime:cpu")
    refused(TargetError, "wanted one of", cpu="z80")
    refused(
        TargetError,
        "a CPU of another kind",
        cpu="x86-64" if cpu.levels_here() == cpu.ARM_LEVELS else "generic",
    )
    monkeypatch.setitem(cpu.LEVELS, manifest.cpu, ("AVX1024",))
    refused(TargetError, f"compiled for {manifest.cpu}, this machine lacks AVX1024")
    monkeypatch.undo()
    (tmp_path / WEIGHTS_FILE).unlink()
    refused(ArtifactError, f"{WEIGHTS_FILE}: the manifest does not list it")
    (tmp_path / WEIGHTS_FILE).write_bytes(b"\0" * 64)
    refused(ArtifactError, "64 bytes, a tensor ends at byte")
    index = (tmp_path / INDEX_FILE).read_bytes()
    for wrong in (b'"dtype":"nonsense"', b'"dtype":"O"', b'"dtype":"datetime64[s]"'):
        (tmp_path / INDEX_FILE).write_bytes(re.sub(rb'"dtype": ?"\w+"', wrong, index))
        refused(ArtifactError, "is no tensor")
    (tmp_path / INDEX_FILE).write_bytes(re.sub(rb'"shape": ?\[', b'"shape":[-1,', index))
    refused(ArtifactError, "is no tensor")
    (tmp_path / INDEX_FILE).write_bytes(b"[]")
    refused(ArtifactError, "no index of weights")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(TargetError, r"pip install 'long-context-compiler\[tvm\]'")


def test_a_function_that_takes_another_number_of_tensors(folder: Path) -> None:
    manifest = manifest_of(folder)
    entry = manifest.programs["add"]
    for inputs in (entry.inputs[:-1], [*entry.inputs, entry.inputs[0]]):
        programs = {"add": msgspec.structs.replace(entry, inputs=inputs)}
        other = msgspec.structs.replace(manifest, programs=programs)
        with pytest.raises(ArtifactError, match=r"add takes \d+ tensors, by the manifest and the"):
            TvmEngine(folder, other, threads=1).load_all()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_loaded_is_what_was_compared(folder: Path, tmp_path: Path) -> None:
    """Not the file, which another process could have written to in between."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    library = tmp_path / manifest_of(folder).programs["add"].file
    TvmEngine(tmp_path, manifest_of(folder), threads=1)
    maps = Path("/proc/self/maps").read_text()
    assert str(library) not in maps
    assert f"memfd:{library.name}" in maps
    TvmEngine(tmp_path, manifest_of(folder), threads=1).load_all()
    content = library.read_bytes()
    library.write_bytes(b"nonsense")  # and not what was loaded under the same name before
    with pytest.raises(ArtifactError, match="TVM cannot load it"):
        TvmEngine(tmp_path, manifest_of(tmp_path), threads=1)
    library.write_bytes(content + b"\0")
    with pytest.raises(ArtifactError, match=r"\.so: \d+ bytes, the manifest says"):
        TvmEngine(tmp_path, manifest_of(folder), threads=1)
