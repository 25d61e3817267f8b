"""The engine of tvm:cpu: the caller's buffers where they lie, and every misuse an error."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from lcc.artifact import cpu
from lcc.artifact.manifest import Manifest, ModelEntry
from lcc.artifact.program_entry import program_entry
from lcc.artifact.weights_index import weights_files
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import ArtifactError, CacheError, LccError, TargetError
from lcc.ir.program import Program
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.runtime.engines.tvm_relax import TvmEngine
from lcc.runtime.kv_cache import zeros
from lcc.targets.tvm_cpu import TvmCpu

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
    length, slots, n = Dim("length", max=16), Dim("slots", min=2), Dim("n")
    cache = torch.zeros(1, HKV, 20, D)
    inputs = (torch.zeros(1, 7, HQ * D), cache, cache.clone(), torch.zeros(1, dtype=torch.int32))
    shapes = ({1: length}, {2: slots}, {2: slots}, None)
    step = Program(
        names=("prefill_chunk",),
        exported=export(Step(), inputs, dynamic_shapes=shapes),
        inputs=("x", "key_0", "value_0", "used"),
        outputs=("out", "key_0_out", "value_0_out"),
        updates={"key_0_out": "key_0", "value_0_out": "value_0"},
    )
    two = (torch.zeros(4, 3), torch.zeros(4, 3))
    add = Program(
        names=("add",),
        exported=export(Add(), two, dynamic_shapes=({0: n}, {0: n})),
        inputs=("a", "b"),
        outputs=("sum", "difference"),
    )
    return [step, add]


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
        scalars=[],
        programs={p.names[0]: program_entry(p, files[p.names[0]]) for p in made},
        passes=[],
        memory=[],
    )
    (folder / "test.json").write_bytes(msgspec.json.encode(manifest))
    return folder


def manifest_of(folder: Path) -> Manifest:
    return msgspec.json.decode((folder / "test.json").read_bytes(), type=Manifest)


@pytest.fixture
def engine(folder: Path) -> TvmEngine:
    return TvmEngine(folder, manifest_of(folder), threads=2)


def drawn(*shape: int) -> np.ndarray:
    array = zeros(shape)
    array[...] = np.random.default_rng(sum(shape)).normal(size=shape)
    return array


def test_steps_write_the_cache_in_place(engine: TvmEngine) -> None:
    """And nothing behind it; the tensors that come back are the caller's own memory."""
    keys, values, runner = (
        zeros([1, HKV, 40, D]),
        zeros([1, HKV, 40, D]),
        engine.runner("prefill_chunk"),
    )
    keys[...] = values[...] = 7
    runner.bind({"key_0": keys, "value_0": values})
    module, used = Step(), 0
    wanted = torch.full((1, HKV, 40, D), 7.0), torch.full((1, HKV, 40, D), 7.0)
    for size in (7, 1, 12, 1, 1, 3, 12):
        x, count = drawn(1, size, HQ * D), np.array([used], np.int32)
        got = runner({"x": x, "used": count}, ["out"])["out"]
        out, *wanted = module(torch.from_numpy(x), *wanted, torch.from_numpy(count))
        used += size
        np.testing.assert_allclose(got, out, atol=1e-6)
        for cache, other in zip((keys, values), wanted, strict=True):
            np.testing.assert_allclose(cache[:, :, :used], other[:, :, :used], atol=1e-6)
            assert (cache[:, :, used:] == 7).all()
    returned = [np.from_dlpack(runner._results[place]).ctypes.data for place in (1, 2)]
    assert returned == [keys.ctypes.data, values.ctypes.data]


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
        folder = Path(sys.argv[1])
        manifest = msgspec.json.decode((folder / "test.json").read_bytes(), type=Manifest)
        TvmEngine(folder, manifest).runner("add")
        print([name for name in ("torch", "tvm", "onnxruntime") if name in sys.modules])
        print("libtvm_compiler" in Path("/proc/self/maps").read_text())
    """
    output = subprocess.check_output([sys.executable, "-c", code, folder], text=True)
    assert output.split() == ["[]", "False"]


def test_bound_inputs_and_outputs_stay_bound_and_can_change(engine: TvmEngine) -> None:
    runner = engine.runner("add")
    a, total = zeros([2, 3]), zeros([2, 3])
    runner.bind({"a": a, "sum": total})
    a[...] = 1  # read when run, not when bound
    runner({"b": np.full((2, 3), 2, np.float32)})
    assert total.tolist() == [[3] * 3] * 2
    other, more = zeros([4, 3]), zeros([4, 3])
    more[...] = 7
    runner.bind({"a": more, "sum": other})
    assert runner({"b": np.full((4, 3), 2, np.float32)}, ["difference"])["difference"].max() == 5
    assert other.tolist() == [[9] * 3] * 4
    assert total.tolist() == [[3] * 3] * 2


def misaligned(*shape: int) -> np.ndarray:
    raw = zeros([int(np.prod(shape)) + 1])
    return raw[1:].reshape(shape)


def test_what_is_fed_may_lie_anywhere(engine: TvmEngine) -> None:
    """It is small, and copied where vectors cannot be loaded; a view that is not whole is not."""
    a = misaligned(33, 3)
    a[...] = np.arange(99).reshape(33, 3)
    a.flags.writeable = False
    got = engine.runner("add")({"a": a, "b": np.ones((33, 3), np.float32)}, ["sum"])["sum"]
    assert (got == a + 1).all()
    with pytest.raises(CacheError, match="a: the array is not C-contiguous"):
        engine.runner("add")({"a": np.ones((3, 4), np.float32).T, "b": a}, ["sum"])


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


def test_files_and_machines_that_cannot_be(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(folder)

    def refused(kind: type[LccError], words: str, **changes: str) -> None:
        with pytest.raises(kind, match=words):
            TvmEngine(tmp_path, msgspec.structs.replace(manifest, **changes)).runner(
                "prefill_chunk"
            )

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
        TargetError, "a CPU of another kind", cpu="generic" if "x86" in manifest.cpu else "x86-64"
    )
    monkeypatch.setitem(cpu.LEVELS, manifest.cpu, ("AVX1024",))
    refused(TargetError, f"compiled for {manifest.cpu}, this machine lacks AVX1024")
    monkeypatch.undo()
    (tmp_path / WEIGHTS_FILE).write_bytes(b"\0" * 64)
    refused(ArtifactError, "64 bytes, a tensor ends at byte")
    (tmp_path / INDEX_FILE).write_bytes(b"[]")
    refused(ArtifactError, "no index of weights")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(TargetError, r"pip install 'long-context-compiler\[tvm\]'")
