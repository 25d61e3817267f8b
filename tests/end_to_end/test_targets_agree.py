"""Every policy on every target that runs here: the same entries kept, the same tokens written."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch

import lcc.runtime
from lcc.artifact.folder import file_entry
from lcc.artifact.manifest import Manifest, ProgramEntry, targets_of
from lcc.artifact.program_entry import program_entries
from lcc.artifact.schedule import Catalyst, Schedule, TextFacts
from lcc.capture.export import capture
from lcc.compile import compile_model, manifest_of
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.ir.program import DECODE, HEAD, PREFILL_CHUNK, Program
from lcc.ir.roles import Role
from lcc.measure.check_golden import check_golden
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import POLICIES, make_policy
from lcc.passes.programs import static_shapes
from lcc.passes.programs.base import run_program_passes
from lcc.passes.programs.schedule import run_plan
from lcc.passes.specialize import Specialized, Subject, specialize
from lcc.runtime.engines.base import Engine, Runner
from lcc.runtime.engines.device_array import Buffer
from lcc.runtime.model import Model
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.targets import (
    TARGETS,
    find_target,
    missing,
    missing_device,
    onnx_mobile,
    onnx_runtime,
)
from lcc.targets.reference import ReferenceEngine, ReferenceRunner
from lcc.testing.tiny import VOCAB_SIZE, random_heads, tiny_model

CACHE = CacheConfig(
    capacity=24, budget=12, chunk_size=5, catalyst_size=4, sink_size=2, recent_size=3
)
# Most tokens twice or more: in the first layer their keys tie for `knorm`, up to rounding.
TEXT = np.random.default_rng(7).integers(0, 50, 61).tolist()
# For those that go by sentences: many short ones, so that there is a choice.
SENTENCES = [t for i, each in enumerate(TEXT) for t in ([each, 46] if i % 5 in (1, 4) else [each])]
ENDS = np.isin(np.arange(VOCAB_SIZE), [ord(c) for c in ".!?\n"])
TEXT_FACTS = TextFacts(catalyst=Catalyst(ids=(40, 41, 42)))
HYBRID = (
    "0: sink_window(sink=4, window=8, block=4); 1: full; "
    "2: block_sparse(block=2, stride=3, local=2, reach=9, shift=1)"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A policy, and what it is compiled with."""

    policy: str
    options: tuple[tuple[str, int | float | str], ...] = ()
    heads: bool = False
    plan: str = "dense"

    def __str__(self) -> str:
        return self.policy + " with heads, in a hybrid" * self.heads

    @property
    def group(self) -> tuple:
        """Cases of one group have the same step and head."""
        return self.plan, self.policy if self.heads else ""

    @property
    def layers(self) -> int:
        """Of the model: one for each kind."""
        return 2 if self.plan == "dense" else 3


CASES = [
    Case("consensus"),
    Case("infinipot", (("attention_span", 3), ("nll_span", 3))),
    Case("snapkv", (("attention_span", 3),)),
    *(Case(name) for name in ("h2o", "sink_window", "keydiff", "knorm", "random", "none")),
    Case("consensus", heads=True, plan=HYBRID),
    Case("locret", (("tail_size", 8),), heads=True, plan=HYBRID),
]
STEPS = (PREFILL_CHUNK, DECODE, HEAD)
# Those for a device of ONNX Runtime's that is not here run on the CPU if they are told to.
RUN_HERE = [
    name
    for name in TARGETS
    if name != "reference"
    and not missing(name)
    and (missing_device(name) is None or name.startswith("onnxruntime:"))
]
EXACT = [name for name in RUN_HERE if find_target(name).dtype == "float32"]
HALF = [name for name in RUN_HERE if name not in EXACT]


def test_every_policy_and_what_is_installed_is_covered() -> None:
    """Or the tests below could check nothing, and nobody would see."""
    assert {case.policy for case in CASES} == set(POLICIES)
    always = {f"onnxruntime:{device}" for device in ("cpu", "mobile", "nnapi", "coreml")}
    assert {name for name in {*always, "tvm:cpu"} if not missing(name)} <= set(EXACT)
    assert {name for name in ["onnxruntime:cuda"] if not missing(name)} == set(HALF)
    assert EXACT


@functools.cache
def captured(layers: int) -> ModelGraph:
    return capture(tiny_model("llama", num_hidden_layers=layers))


@functools.cache
def specialized(case: Case) -> tuple[Specialized, Manifest]:
    """And how it is run, by targets whose steps hand out the queries of some rows or of all."""
    policy = PolicyConfig(name=case.policy, options=dict(case.options))
    config = CompileConfig(cache=CACHE, policy=policy, plan=case.plan)
    heads = random_heads(tiny_model("llama", num_hidden_layers=case.layers)) if case.heads else None
    subject = Subject(captured(case.layers), "tiny", "llama", None, ENDS, heads)
    made = make_policy(policy, with_heads=case.heads)
    special = specialize(subject, config, made, every_row=True)
    return special, manifest_of(special, config, None, TEXT_FACTS)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Convert once what several targets convert alike, and check the passes elsewhere.

    So few layers would be refused for an accelerator: the masks before them count too much.
    """
    made: dict[tuple, tuple[ir.Model, Program]] = {}
    static_programs: dict[int, tuple[list[Program], Program]] = {}
    to_onnx, static = onnx_runtime.to_onnx, static_shapes.static

    def convert(program: Program, *how: object) -> ir.Model:
        key = id(program.exported), bool(how)
        if key not in made:  # with the program, so that no other gets its address
            made[key] = to_onnx(program, *how), program
        return made[key][0].clone()

    def fixed(program: Program) -> list[Program]:
        key = id(program.exported)
        if key not in static_programs:
            static_programs[key] = static(program), program
        return static_programs[key][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LCC_CHECK", "0")
        patch.setattr(onnx_mobile, "LEAST_SHARE", 0)
        patch.setattr(static_shapes, "static", fixed)
        for module in (onnx_mobile, onnx_runtime):
            patch.setattr(module, "to_onnx", convert)
        yield


class Renamed:
    """Of an engine that holds the programs of several cases, those of one."""

    def __init__(self, engine: Engine, case: Case) -> None:
        self.engine, self.case, self.text_ended = engine, case, False

    def load_all(self) -> None:
        self.engine.load_all()

    def zeros(self, shape: Sequence[int], dtype: str, role: Role) -> Buffer:
        return self.engine.zeros(shape, dtype, role)

    def program(self, name: str) -> ProgramEntry:
        return self.engine.program(renamed(self.case, name))

    def runner(self, program: str) -> Runner:
        return self.engine.runner(renamed(self.case, program))


def renamed(case: Case, program: str) -> str:
    return program if program in STEPS else f"{program}_of_{CASES.index(case)}"


Made = tuple["Renamed", Manifest]


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Case], Made]:
    """Built once for each step: the programs without weights of all cases that share it."""

    @functools.cache
    def build(name: str, group: tuple) -> tuple[Engine, list[Program]]:
        cases = [case for case in CASES if case.group == group]
        special, manifest = specialized(cases[0])  # its step gives queries, if any of them does
        programs = [each for each in special.programs if each.names[0] in STEPS]
        for case in cases:
            for each in specialized(case)[0].programs:
                if each.names[0] not in STEPS:
                    names = tuple(renamed(case, old) for old in each.names)
                    programs.append(dataclasses.replace(each, names=names))
        target, folder = find_target(name), tmp_path_factory.mktemp("built")
        assert target.refusals(programs) == []
        programs = run_program_passes(programs, target.passes())
        entries = program_entries(programs, target.build(programs, folder))
        files = {path.name: file_entry(path) for path in folder.iterdir()}
        parts = {"programs": entries, "cpu": target.cpu, "files": files}
        manifest = msgspec.structs.replace(manifest, target=name, **parts)
        return lcc.runtime._engine(
            folder, manifest, lcc.runtime._How(threads=1, device="cpu")
        ), programs

    def of_case(name: str, case: Case) -> Made:
        engine, programs = build(name, case.group)
        special, manifest = specialized(case)
        more = special.programs, special.layers, special.cache, special.policy
        buffers = run_plan(programs, *more, every_row=True).buffers
        schedule = with_rows(manifest.schedule)
        return Renamed(engine, case), msgspec.structs.replace(
            manifest, buffers=buffers, schedule=schedule
        )

    return of_case


def with_rows(schedule: Schedule) -> Schedule:
    """Of a policy that asks for no queries, over a step that is asked for those of some rows."""
    (block,) = schedule.read
    step, *others = block.do
    step = msgspec.structs.replace(step, ints={"query_rows": ("zero", "one")} | step.ints)
    block = msgspec.structs.replace(block, do=(step, *others))
    return msgspec.structs.replace(schedule, read=(block,))


class Watched(ReferenceEngine):
    """The reference; of what a policy ranks by, no two entries that it may evict have the same.

    So it is in the text; what the model writes may repeat itself.
    """

    def __init__(self, special: Specialized) -> None:
        super().__init__(special.programs)
        self.policy, self.rankings, self.text_ended = special.policy, 0, False

    def runner(self, program: str) -> ReferenceRunner:
        parts = self._programs[program]
        if program.startswith("evict"):
            return Watch(self, *parts)
        return ReferenceRunner(*parts, self._lock)


class Watch(ReferenceRunner):
    def __init__(self, engine: Watched, program: Program, module: torch.nn.Module) -> None:
        super().__init__(program, module, threading.Lock())
        self.engine = engine

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> None:
        given = {**self.bound, **arrays}
        used, kept = (int(given[name][0]) for name in ("used", "kept"))
        chosen = slice(CACHE.sink_size, used - CACHE.recent_size)
        keys = given["key"][0].astype(np.float64)
        ranked = {"norms of keys": np.linalg.norm(keys, axis=-1)}
        for each in self.engine.policy.scores:
            if each.name in given and each.name != "sentence":  # of which many have the same
                rows = np.atleast_2d(given[each.name]).copy()
                ranked[each.name] = rows = rows.T if each.made_by == "step" else rows
                if each.made_by == "log":
                    rows[:, :kept] = given[f"{each.name}_kept"][:1, :kept]
        for name, numbers in ranked.items():
            gaps = np.diff(np.sort(numbers[:, chosen], axis=1), axis=1)
            assert (gaps > 0).all() or self.engine.text_ended, f"ties in {name}"
            self.engine.rankings += gaps.size
        super().__call__(arrays)


@dataclasses.dataclass
class Outcome:
    """What a text of several cycles leaves in the cache, and what is written after it."""

    kept: list[np.ndarray]
    logits: np.ndarray
    written: list[int]
    cycles: int


def outcome(case: Case, engine: "Renamed | Watched", manifest: Manifest, folder: Path) -> Outcome:
    programs = {name: engine.program(name) for name in manifest.programs}
    manifest = msgspec.structs.replace(manifest, programs=programs)
    session = Model(manifest, Tokenizer(folder), engine).session()
    text, new = SENTENCES if case.policy == "consensus" else TEXT, 30
    if case.policy == "none":  # as long as nothing has to be evicted
        text, new = TEXT[:17], 7
    session.feed(text, prefix=False, last=True)
    kept = [session.kept_tokens(i) for i in range(case.layers)]
    logits = session.next_logits()
    engine.text_ended = True
    written = list(session.generate_ids(max_new_tokens=new, eos=[]))
    return Outcome(kept, logits, written, len(session.cycles))


@pytest.fixture(scope="module")
def reference(tiny_folder: Path) -> Callable[[Case], Outcome]:
    @functools.cache
    def run(case: Case) -> Outcome:
        special, manifest = specialized(case)
        engine = Watched(special)
        result = outcome(case, engine, manifest, tiny_folder)
        if case.policy == "none":
            assert result.cycles == engine.rankings == 0
        else:
            assert result.cycles >= 6  # three and more in the text, the others while it writes
            assert engine.rankings > 0
            assert len(np.unique(result.kept[-1])) < len(TEXT)
        return result

    return run


@pytest.mark.parametrize("target", EXACT)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_policy_is_the_reference(
    case: Case,
    target: str,
    engine_of: Callable[[str, Case], tuple],
    reference: Callable[[Case], Outcome],
    tiny_folder: Path,
) -> None:
    wanted = reference(case)
    got = outcome(case, *engine_of(target, case), tiny_folder)
    assert got.cycles == wanted.cycles
    for one, other in zip(got.kept, wanted.kept, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(got.logits, wanted.logits, atol=1e-4)
    assert got.written == wanted.written


@pytest.mark.parametrize("target", HALF)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_keeps_nearly_the_same(
    case: Case,
    target: str,
    engine_of: Callable[[str, Case], tuple],
    reference: Callable[[Case], Outcome],
    tiny_folder: Path,
) -> None:
    wanted = reference(case)
    got = outcome(case, *engine_of(target, case), tiny_folder)
    assert got.cycles == wanted.cycles
    pairs = list(zip(got.kept, wanted.kept, strict=True))
    different = sum(int((one != other).sum()) for one, other in pairs)
    assert different <= 0.1 * sum(other.size for _, other in pairs)
    if not different:  # or they have read other texts
        np.testing.assert_allclose(got.logits, wanted.logits, atol=2e-2)
        # Where two tokens are as good as equal, either is the next one; a text goes on from it.
        assert wanted.logits[got.written[0]] >= wanted.logits.max() - 2 * 2e-2
    assert (got.logits != wanted.logits).any()


def test_one_artifact_for_all_of_them(tiny_folder: Path, tmp_path: Path) -> None:
    """Compiled at once, loaded as each: all find the same golden, and write the same tokens."""
    names = [name for name in EXACT if name.startswith("onnxruntime:")]
    config = CompileConfig(
        target=names[0], also=tuple(names[1:]), cache=CACHE, policy=PolicyConfig(name="snapkv")
    )
    manifest = compile_model(tiny_folder, tmp_path / "m.lcc", config)
    assert targets_of(manifest) == names
    results = []
    for target in names:
        model = lcc.runtime.load(tmp_path / "m.lcc", target=target, device="cpu")
        assert model.manifest.target == target
        report = check_golden(model, tmp_path / "m.lcc")
        assert report.ok, [row for row in report.rows if not row.ok]
        session = model.session()
        session.feed(TEXT, prefix=False)
        kept = [session.kept_tokens(i).tolist() for i in range(2)]
        results.append((kept, list(session.generate_ids(max_new_tokens=20, eos=[]))))
        assert len(session.cycles) >= 3
    assert all(result == results[0] for result in results)
    assert len(set(results[0][1])) > 3  # it does not write the same token for ever
