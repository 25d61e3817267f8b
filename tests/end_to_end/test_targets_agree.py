"""Every policy on every target that runs here: the same entries kept, the same tokens written."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

import lcc.runtime
from lcc.artifact.manifest import ProgramEntry, targets_of
from lcc.capture.export import capture
from lcc.compile import compile_model, manifest_of, program_entries
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.ir.program import DECODE, HEAD, PREFILL_CHUNK, Program
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import POLICIES
from lcc.runtime.engines.base import Engine
from lcc.runtime.session import Session
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.specialize import Specialized, specialize
from lcc.targets import (
    TARGETS,
    find_target,
    missing,
    missing_device,
    onnx_mobile,
    onnx_runtime,
)
from lcc.targets.reference import ReferenceEngine, ReferenceRunner
from lcc.testing.tiny import random_heads, tiny_model

SIZES = {"capacity": 24, "budget": 12, "chunk_size": 5, "catalyst_size": 4, "sink_size": 2}
# Most tokens twice or more: in the first layer their keys tie for `knorm`, up to rounding.
TEXT = np.random.default_rng(7).integers(0, 50, 61).tolist()
# For those that go by sentences: many short ones, so that there is a choice.
SENTENCES = [t for i, each in enumerate(TEXT) for t in ([each, 46] if i % 5 in (1, 4) else [each])]
HYBRID = (
    "0: sink_window(sink=4, window=8, block=4); 1: full; "
    "2: block_sparse(block=2, stride=3, local=2, reach=9, shift=1)"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A policy, and what it is compiled with."""

    policy: str
    heads: bool = False
    plan: str = "dense"
    options: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return self.policy + " with heads, in a hybrid" * self.heads

    @property
    def group(self) -> tuple:
        """Cases of one group have the same step and head."""
        return self.heads, self.plan

    @property
    def layers(self) -> int:
        """Of the model: one for each kind."""
        return 2 if self.plan == "dense" else 3


CASES = [
    Case("consensus"),
    Case("infinipot", options=(("merge", 0.1),)),
    Case("snapkv", options=(("query_pool", "max"),)),
    *(Case(name) for name in ("h2o", "sink_window", "keydiff", "knorm", "random", "none")),
    Case("consensus", heads=True, plan=HYBRID),
    Case("locret", heads=True, plan=HYBRID, options=(("tail_size", 8),)),
]
STEPS = (PREFILL_CHUNK, DECODE, HEAD)
# Those for a device of ONNX Runtime's that is not here run on the CPU if they are told to. What
# computes in half precision may keep other entries: it has tests of its own.
RUN_HERE = [
    name
    for name in TARGETS
    if name != "reference"
    and not missing(name)
    and find_target(name).dtype == "float32"
    and (missing_device(name) is None or name.startswith("onnxruntime:"))
]


def test_every_policy_and_what_is_installed_is_covered() -> None:
    """Or the tests below could check nothing, and nobody would see."""
    assert {case.policy for case in CASES} == set(POLICIES)
    always = {"onnxruntime:cpu", "onnxruntime:mobile", "tvm:cpu"}
    assert {name for name in always if not missing(name)} <= set(RUN_HERE)
    assert RUN_HERE


@functools.cache
def captured(layers: int) -> ModelGraph:
    return capture(tiny_model("llama", num_hidden_layers=layers))


@functools.cache
def specialized(case: Case) -> tuple[Specialized, CompileConfig]:
    options = {"attention_span": 3, "novelty_span": 3, "catalyst": "abc", **dict(case.options)}
    config = CompileConfig(
        cache=CacheConfig(**SIZES, recent_size=3),
        policy=PolicyConfig(name=case.policy, **options),
        plan=case.plan,
    )
    heads = random_heads(tiny_model("llama", num_hidden_layers=case.layers)) if case.heads else None
    return specialize(captured(case.layers), config, "tiny", "llama", None, heads), config


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Convert once what several targets convert alike, and check the passes elsewhere.

    So few layers would be refused for an accelerator: the masks before them count too much.
    """
    made: dict[tuple, tuple[ir.Model, Program]] = {}
    static_steps: dict[int, tuple[list[Program], Program]] = {}
    to_onnx, static = onnx_runtime.to_onnx, onnx_mobile.static

    def convert(program: Program, *how: object) -> ir.Model:
        key = id(program.exported), bool(how)
        if key not in made:  # with the program, so that no other gets its address
            made[key] = to_onnx(program, *how), program
        return made[key][0].clone()

    def fixed(program: Program) -> list[Program]:
        key = id(program.exported)
        if key not in static_steps:
            static_steps[key] = static(program), program
        return static_steps[key][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LCC_CHECK", "0")
        patch.setattr(onnx_mobile, "LEAST_SHARE", 0)
        patch.setattr(onnx_mobile, "static", fixed)
        for module in (onnx_mobile, onnx_runtime):
            patch.setattr(module, "to_onnx", convert)
        yield


class Renamed:
    """Of an engine that holds the programs of several cases, those of one.

    steps   what they share, as it was built
    """

    def __init__(self, engine: Engine, steps: dict[str, ProgramEntry], case: Case) -> None:
        self.engine, self.steps, self.case = engine, steps, case

    def zeros(self, shape: Sequence[int], dtype: str) -> object:
        return self.engine.zeros(shape, dtype)

    def runner(self, program: str) -> object:
        return self.engine.runner(renamed(self.case, program))


def renamed(case: Case, program: str) -> str:
    return program if program in STEPS else f"{program}_of_{CASES.index(case)}"


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Case], Engine]:
    """Built once for each step: the programs without weights of all cases that share it."""

    @functools.cache
    def build(name: str, group: tuple) -> tuple[Engine, dict[str, ProgramEntry]]:
        cases = [case for case in CASES if case.group == group]
        special, config = specialized(cases[0])  # its step gives queries, if any of them does
        programs = [each for each in special.programs if each.names[0] in STEPS]
        for case in cases:
            for each in specialized(case)[0].programs:
                if each.names[0] not in STEPS:
                    names = tuple(renamed(case, old) for old in each.names)
                    programs.append(dataclasses.replace(each, names=names))
        target, folder = find_target(name), tmp_path_factory.mktemp("built")
        assert target.refusals(programs) == []
        programs = target.adapt(programs)
        entries = program_entries(programs, target.build(programs, folder))
        manifest = msgspec.structs.replace(
            manifest_of(special, config), target=name, programs=entries, cpu=target.cpu
        )
        steps = {each: entries[each] for each in STEPS}
        return lcc.runtime._engine(folder, manifest, 1, "cpu"), steps

    return lambda name, case: Renamed(*build(name, case.group), case)


class Watched(ReferenceEngine):
    """The reference; of what a policy ranks by, no two entries that it may evict have the same.

    So it is in the text; what the model writes may repeat itself.
    """

    def __init__(self, special: Specialized) -> None:
        super().__init__(special.programs)
        self.rankings, self.text_ended = 0, False
        self.steps: dict[str, ProgramEntry] = {}
        for name in [name for name in self.runners if name.startswith("evict")]:
            self.runners[name] = Watch(self, self.runners[name].program)


class Watch(ReferenceRunner):
    def __init__(self, engine: Watched, program: Program) -> None:
        super().__init__(program)
        self.engine = engine

    def __call__(self, feeds: Mapping, fetch: Sequence[str] = ()) -> dict:
        used, prefix, recent = (int(feeds[name][0]) for name in ("used", "prefix", "recent"))
        keys = self.bound["key"][0, :, prefix : used - recent].astype(np.float64)
        ranked = {"norms of keys": np.linalg.norm(keys, axis=-1)}
        for name in ("attention", "novelty", "noise", "retaining"):
            if name in feeds:
                ranked[name] = feeds[name][:, prefix : used - recent]
        for name, numbers in ranked.items():
            gaps = np.diff(np.sort(numbers, axis=1), axis=1)
            assert (gaps > 0).all() or self.engine.text_ended, f"ties in {name}"
            self.engine.rankings += gaps.size
        return super().__call__(feeds, fetch)


@dataclasses.dataclass
class Outcome:
    """What a text of several cycles leaves in the cache, and what is written after it."""

    kept: list[np.ndarray]
    logits: np.ndarray
    written: list[int]
    cycles: int


def outcome(case: Case, engine: "Renamed | Watched", tokenizer: Tokenizer) -> Outcome:
    special, config = specialized(case)
    manifest = manifest_of(special, config)
    manifest = msgspec.structs.replace(manifest, programs=manifest.programs | engine.steps)
    session = Session(manifest, special.cache, tokenizer, engine)
    if session.manifest.queries == "catalyst":
        session.catalyst = [40, 41, 42]
    text, new = SENTENCES if case.policy == "consensus" else TEXT, 30
    if case.policy == "none":  # as long as nothing has to be evicted
        text, new = TEXT[:17], 7
    session.feed(text, prefix=False, last=True)
    kept = [session.kept_tokens(i) for i in range(len(special.model.layers))]
    logits = session._executor.logits().copy()
    engine.text_ended = True
    written = list(session.generate_ids(max_new_tokens=new, eos=[]))
    return Outcome(kept, logits, written, len(session.cycles))


@pytest.fixture(scope="module")
def reference(tiny_folder: Path) -> Callable[[Case], Outcome]:
    @functools.cache
    def run(case: Case) -> Outcome:
        engine = Watched(specialized(case)[0])
        result = outcome(case, engine, Tokenizer(tiny_folder))
        if case.policy == "none":
            assert result.cycles == engine.rankings == 0
        else:
            assert result.cycles >= 6  # three and more in the text, the others while it writes
            assert engine.rankings > 0
            assert len(np.unique(result.kept[-1])) < len(TEXT)
        return result

    return run


@pytest.mark.parametrize("target", RUN_HERE)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_policy_is_the_reference(
    case: Case,
    target: str,
    engine_of: Callable[[str, Case], Engine],
    reference: Callable[[Case], Outcome],
    tiny_folder: Path,
) -> None:
    wanted = reference(case)
    got = outcome(case, engine_of(target, case), Tokenizer(tiny_folder))
    assert got.cycles == wanted.cycles
    for one, other in zip(got.kept, wanted.kept, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(got.logits, wanted.logits, atol=1e-4)
    assert got.written == wanted.written


def test_one_artifact_for_all_of_them(tiny_folder: Path, tmp_path: Path) -> None:
    """Compiled at once, loaded as each: the same entries kept, the same tokens."""
    config = CompileConfig(
        target=RUN_HERE[0],
        also=tuple(RUN_HERE[1:]),
        cache=CacheConfig(**SIZES, recent_size=3),
        policy=PolicyConfig(name="snapkv"),
    )
    manifest = compile_model(tiny_folder, tmp_path / "m.lcc", config)
    assert targets_of(manifest) == RUN_HERE
    results = []
    for target in RUN_HERE:
        session = lcc.runtime.open(tmp_path / "m.lcc", target=target, device="cpu")
        assert session.manifest.target == target
        session.feed(TEXT, prefix=False)
        kept = [session.kept_tokens(i).tolist() for i in range(2)]
        results.append((kept, list(session.generate_ids(max_new_tokens=20, eos=[]))))
        assert len(session.cycles) >= 3
    assert all(result == results[0] for result in results)
    assert len(set(results[0][1])) > 3  # it does not write the same token for ever
