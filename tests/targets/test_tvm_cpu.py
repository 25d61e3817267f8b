"""Target tvm:cpu: every policy over several cycles, and what the artifact holds."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import lcc.runtime
from lcc.artifact import Manifest
from lcc.capture import capture
from lcc.compile import Specialized, compile_model, manifest_of, program_entries, specialize
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.cpu import best_level
from lcc.errors import ConfigError
from lcc.models import LoadedModel
from lcc.runtime.engine_tvm import TvmEngine
from lcc.runtime.session import Session
from lcc.runtime.text import Tokenizer
from lcc.targets.reference import ReferenceEngine
from lcc.targets.tvm_cpu import TvmCpu
from lcc.targets.tvm_cpu.matmul import pack
from lcc.targets.tvm_cpu.tir import TILES
from lcc.tiny import random_heads, tiny_model
from lcc.verify import verify
from lcc.weights_index import weights_files

WEIGHTS_FILE, _ = weights_files("tvm:cpu")

SIZES = {"capacity": 24, "budget": 12, "chunk_size": 5, "catalyst_size": 4, "sink_size": 2}
# No token twice: in the first layer its keys would tie for `knorm`, up to rounding.
TEXT = np.random.default_rng(5).permutation(250)[:61].tolist()
SENTENCES = [t for i, each in enumerate(TEXT) for t in ([each, 46] if i % 5 in (1, 4) else [each])]
CASES: dict[str, dict] = {
    "consensus": {},
    "consensus with heads": {},
    "infinipot": {"merge": 0.1},
    "locret with heads": {"tail_size": 8},
    "snapkv": {"query_pool": "max"},
    "h2o": {},
    "sink_window": {},
    "keydiff": {},
    "knorm": {},
    "random": {},
}
HYBRIDS = {
    "infinipot in a hybrid": "0: sink_window(sink=2, window=7); 1: full",
    "sink_window in a hybrid of blocks": (
        "0: block_sparse(block=4, stride=3, local=2, reach=12, shift=1); 1: full"
    ),
}
EVERY = [*CASES, *HYBRIDS]
STEPS = ("prefill_chunk", "decode", "head")


class Renamed:
    """Of an engine that holds the programs of several artifacts, those of one."""

    def __init__(self, engine: TvmEngine, names: Callable[[str], str]) -> None:
        self.engine, self.names = engine, names

    def runner(self, program: str) -> object:
        return self.engine.runner(self.names(program))


@pytest.fixture(scope="module")
def specials() -> dict[str, tuple[Specialized, CompileConfig]]:
    model, found = tiny_model("llama"), {}
    for case in EVERY:
        name, heads = case.split()[0], random_heads(model) if "heads" in case else None
        options = {"attention_span": 3, "novelty_span": 3, "catalyst": "abc", **CASES.get(case, {})}
        config = CompileConfig(
            target="tvm:cpu",
            cache=CacheConfig(**SIZES, recent_size=3),
            policy=PolicyConfig(name=name, **options),
            plan=HYBRIDS.get(case, "dense"),
        )
        graph = capture(model)
        found[case] = specialize(graph, config, "tiny", "llama", None, heads), config
    return found


def step_of(case: str) -> str:
    """Which case's step and head it uses: those without heads share one that gives queries."""
    if case in HYBRIDS:
        return case
    return "consensus with heads" if "heads" in case else "consensus"


@pytest.fixture(scope="module")
def engine(specials: dict, tmp_path_factory: pytest.TempPathFactory) -> TvmEngine:
    """One library with the weightless programs of all cases, for it takes seconds to build one."""
    folder, programs = tmp_path_factory.mktemp("all"), []
    for case, (special, _) in specials.items():
        for program in special.programs:
            if program.names[0] in STEPS and step_of(case) != case:
                continue
            names = tuple(renamed(case, name) for name in program.names)
            programs.append(dataclasses.replace(program, names=names))
    special, config = specials["consensus"]
    target = TvmCpu()
    assert target.refusals(programs) == []
    whole = dataclasses.replace(special, programs=programs)
    entries = program_entries(programs, target.build(programs, folder))
    manifest = msgspec.structs.replace(
        manifest_of(whole, config), target=target.name, programs=entries, cpu=target.cpu
    )
    return TvmEngine(folder, manifest, threads=1)


def renamed(case: str, program: str) -> str:
    owner = step_of(case) if program in STEPS else case
    return f"{program}_of_{EVERY.index(owner)}"


@pytest.mark.parametrize("case", EVERY)
def test_every_policy_is_the_reference(
    case: str, specials: dict, engine: TvmEngine, tiny_folder: Path
) -> None:
    """The same entries kept by several cycles, the same logits, the same tokens written."""
    special, config = specials[case]
    sessions = []
    for each in (ReferenceEngine(special.programs), Renamed(engine, lambda n: renamed(case, n))):
        manifest: Manifest = manifest_of(special, config)
        session = Session(manifest, special.cache, Tokenizer(tiny_folder), each)
        if manifest.queries == "catalyst":
            session.catalyst = [40, 41, 42]
        session.feed(SENTENCES if "consensus" in case else TEXT, prefix=False, last=True)
        sessions.append(session)
    reference, own = sessions
    assert len(own.cycles) == len(reference.cycles) >= 3
    for i in range(len(special.model.layers)):
        np.testing.assert_array_equal(own.kept_tokens(i), reference.kept_tokens(i))
    logits = [session._executor.logits() for session in sessions]
    np.testing.assert_allclose(*logits, atol=1e-4)
    written = [list(s.generate_ids(max_new_tokens=30, eos=[])) for s in sessions]
    assert written[0] == written[1]
    assert len(own.cycles) >= 6


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Gemma 3: layers with a window of their own, norms of queries and keys."""
    folder = tmp_path_factory.mktemp("gemma3") / "m.lcc"
    compile_model(loaded("gemma3_text", tiny_folder), folder, CONFIG)
    return folder


CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
CONFIG = CompileConfig(target="tvm:cpu", cache=CACHE)


def loaded(architecture: str, tiny_folder: Path) -> LoadedModel:
    files = {n: (tiny_folder / n).read_bytes() for n in ("tokenizer.json", "tokenizer_config.json")}
    return LoadedModel(tiny_model(architecture), architecture, architecture, 512, files)


def test_weights_the_other_way_round(tiny_folder: Path, tmp_path: Path) -> None:
    """GPT-2 has biases, too, and no rotation."""
    model = loaded("gpt2", tiny_folder)
    compile_model(model, tmp_path / "m.lcc", CONFIG)
    report = verify(tmp_path / "m.lcc", model, prompt_tokens=90, new_tokens=20)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert any("cycles" in row.what for row in report.rows)


def test_windows_and_two_rotations(artifact: Path, tiny_folder: Path) -> None:
    model = loaded("gemma3_text", tiny_folder)
    report = verify(artifact, model, prompt_tokens=90, new_tokens=20)
    assert report.ok, [row for row in report.rows if not row.ok]


def test_a_tied_embedding_is_stored_once_and_packed(artifact: Path) -> None:
    weight = tiny_model("gemma3_text").lm_head.weight.numpy()
    packed = pack(weight, TILES[best_level()]).tobytes()
    stored = (artifact / WEIGHTS_FILE).read_bytes()
    assert stored.count(packed) == 1
    assert stored.count(weight[:16].tobytes()) == 0


def test_the_cpu_is_written_down_and_can_be_chosen(artifact: Path, tiny_folder: Path) -> None:
    assert lcc.runtime.read_manifest(artifact).cpu == best_level()
    model = loaded("llama", tiny_folder)
    with pytest.raises(ConfigError, match="cpu is 'i386', wanted one of x86-64-v4, x86-64-v3"):
        compile_model(model, artifact.parent / "x.lcc", msgspec.structs.replace(CONFIG, cpu="i386"))
    other = CompileConfig(cpu="x86-64-v3")
    with pytest.raises(ConfigError, match="cpu is x86-64-v3, onnxruntime:cpu runs on any"):
        compile_model(model, artifact.parent / "x.lcc", other)
