"""The runtime in one file, list by list: hand-made schedules, programs that only note their calls.

Every test writes down the calls that docs/format.md asks for.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

EXAMPLE = Path(__file__).parents[2] / "examples" / "05_runtime_in_one_file.py"
CONSTANTS = {"zero": 0, "one": 1, "two": 2, "three": 3, "no_state": -1}
CONSTANTS |= {"capacity": 8, "budget": 4, "chunk_size": 3, "reserved": 2}
COUNTERS = dict.fromkeys(("used", "kept", "tokens", "n", "start", "layer", "left", "asked"), 0)
COUNTERS |= {"a": 10, "b": 20, "known": 0, "state": -1}
FULL = {"name": "full", "used": "used", "kept": "kept", "slots": "capacity", "layers": [0, 1]}
FILL = ["used", "tokens"]
IDS = {"name": "ids", "role": "tokens", "dtype": "int64", "shape": [16]}
STEP = {"bind": {"tokens": ["ids", "used", "n"]}, "ints": {"positions": ["tokens", "n"]}}


@pytest.fixture(scope="module")
def one_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("runtime_in_one_file", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tensor(name: str, *shape: int | str, dtype: str = "int64") -> dict[str, Any]:
    return {"name": name, "role": "tokens", "dtype": dtype, "shape": list(shape)}


def program(name: str, inputs: list[dict], outputs: list[dict] | None = None) -> dict[str, Any]:
    return {"file": name, "inputs": inputs, "outputs": outputs or []}


def step_program(name: str = "step", rows: int | str = "n") -> dict[str, Any]:
    return program(name, [tensor("tokens", 1, rows), tensor("positions", 1, rows)])


class Calls:
    """What was run: program and arrays, as lists of numbers; `then` may write to the arrays."""

    def __init__(self) -> None:
        self.made: list[tuple] = []
        self.then: Callable[[str, dict], None] = lambda name, arrays: None

    def call(self, program: Any, arrays: dict[str, np.ndarray]) -> None:
        shown = {name: array.tolist() for name, array in arrays.items()}
        self.made.append((program.file, shown))
        self.then(program.file, arrays)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def manifest_of(
    one_file: ModuleType,
    schedule: dict[str, Any],
    programs: dict[str, dict] | None = None,
    *,
    groups: tuple[dict, ...] = (),
    buffers: tuple[dict, ...] = (),
    counters: dict[str, int] | None = None,
    text: dict | None = None,
) -> Any:
    """What is given, and as little as can be besides."""
    parts: dict[str, Any] = dict.fromkeys(one_file.FIELDS.split())
    parts |= {"constants": CONSTANTS, "counters": COUNTERS | (counters or {})}
    parts |= {"groups": [FULL, *groups], "buffers": [IDS, *buffers], "text": text or {}}
    parts["schedule"] = {"read": [], "logits": [], "nll": []} | schedule
    parts["programs"] = programs or {"step": step_program()}
    return one_file.Manifest(**parts)


@pytest.fixture
def make(one_file: ModuleType, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A runtime over hand-made parts of a manifest, whose programs only note their calls."""
    monkeypatch.setattr(one_file.onnxruntime, "InferenceSession", lambda *arguments: None)

    def make(*parts: Any, sizes: dict[str, int] | None = None, **more: Any) -> Any:
        manifest = manifest_of(one_file, *parts, **more)
        runtime = one_file.Runtime(Path(), manifest, sizes or {})
        runtime.call = calls.call
        return runtime

    return make


def read_block(**more: Any) -> dict[str, Any]:
    over = {"ids": "text", "most": "chunk_size"}
    return {"over": over, "do": [{"run": "step", **STEP}], "add": FILL, **more}


def test_text_is_read_in_chunks_behind_what_was_read(
    make: Callable[..., Any], calls: Calls
) -> None:
    runtime = make({"read": [read_block(set={"state": "used"})]})
    runtime.read([11, 12, 13, 14, 15])
    assert calls.made == [
        ("step", {"tokens": [[11, 12, 13]], "positions": [[0, 1, 2]]}),
        ("step", {"tokens": [[14, 15]], "positions": [[3, 4]]}),
    ]
    numbers = runtime.numbers
    assert (numbers["used"], numbers["tokens"], numbers["state"], numbers["n"]) == (5, 5, 5, 2)
    assert numbers["start"] == 3
    assert runtime.buffers["ids"].tolist()[:6] == [11, 12, 13, 14, 15, 0]


def test_memory_is_bound_and_not_copied(make: Callable[..., Any], calls: Calls) -> None:
    runtime = make({"read": [read_block()]})
    calls.then = lambda name, arrays: np.copyto(arrays["tokens"], 99)
    runtime.read([1, 2, 3, 4])
    assert runtime.buffers["ids"].tolist()[:5] == [99, 99, 99, 99, 0]


def test_one_token_takes_the_other_program(make: Callable[..., Any], calls: Calls) -> None:
    run = {"run": "step", "one": "decode", **STEP}
    # `decode` has no positions: what a program does not have is left out.
    decode = program("decode", [tensor("tokens", 1, "n")])
    runtime = make({"read": [read_block(do=[run])]}, {"step": step_program(), "decode": decode})
    runtime.read([1, 2, 3, 4])
    assert [name for name, _ in calls.made] == ["step", "decode"]
    assert calls.made[1][1] == {"tokens": [[4]]}


def test_a_program_of_fixed_length_takes_more_rows(make: Callable[..., Any], calls: Calls) -> None:
    runtime = make({"read": [read_block()]}, {"step": step_program(rows=3)})
    runtime.read([1, 2, 3, 4])
    assert calls.made[1][1] == {"tokens": [[4, 0, 0]], "positions": [[3, 4, 5]]}
    assert runtime.numbers["used"] == 4


CYCLE = {"set": {"used": "budget", "kept": "budget"}}


def test_a_full_cache_is_evicted_before_the_next_token(
    make: Callable[..., Any], calls: Calls
) -> None:
    runtime = make({"read": [read_block()], "cycle": [CYCLE]})
    cycles: list[tuple[int, int]] = []
    runtime.on_cycle = lambda: cycles.append((runtime.numbers["tokens"], runtime.numbers["left"]))
    runtime.read(list(range(9)), ends=True)
    # 6 slots for text, budget 4: 3 + 3, a cycle, 2, a cycle, 1. Three tokens left after the first
    # do not fit in the 2 slots that it frees; one token after the second does.
    assert [len(arrays["tokens"][0]) for _, arrays in calls.made] == [3, 3, 2, 1]
    assert cycles == [(6, -1), (8, 1)]
    assert runtime.numbers["used"] == 5


def test_the_last_cycle_may_leave_room_for_no_more(make: Callable[..., Any]) -> None:
    runtime = make({"read": [read_block()], "cycle": [CYCLE]})
    runtime.read(list(range(8)), ends=True)
    assert (runtime.numbers["left"], runtime.numbers["used"]) == (2, 6)


def test_a_text_that_goes_on_never_has_a_last_cycle(make: Callable[..., Any]) -> None:
    runtime = make({"read": [read_block()], "cycle": [CYCLE]})
    runtime.read(list(range(7)))
    assert runtime.numbers["left"] == -1


def test_where_nothing_evicts_a_full_cache_is_an_error(make: Callable[..., Any]) -> None:
    runtime = make({"read": [read_block()]})
    with pytest.raises(SystemExit, match="the cache is full: 6 entries"):
        runtime.read(list(range(7)))


def test_sizes_are_lowered(make: Callable[..., Any], calls: Calls) -> None:
    cache = {"name": "key", "role": "key", "dtype": "float32", "shape": [1, "capacity", 2]}
    runtime = make(
        {"read": [read_block()]}, buffers=(cache,), sizes={"capacity": 6, "chunk_size": 2}
    )
    assert runtime.buffers["key"].shape == (1, 6, 2)
    runtime.read([1, 2, 3])
    assert [len(arrays["tokens"][0]) for _, arrays in calls.made] == [2, 1]


def test_a_loop_over_rows(make: Callable[..., Any], calls: Calls) -> None:
    log = {"name": "hidden", "role": "hidden", "dtype": "float32", "shape": [10, 2]}
    block = {
        "over": {"rows": ["known", "used"], "most": "three"},
        "do": [{"run": "head", "bind": {"hidden": ["hidden", "known", "n"]}}],
        "add": ["known"],
    }
    head = program("head", [tensor("hidden", "n", 2, dtype="float32")])
    runtime = make(
        {"logits": [block]},
        {"head": head},
        buffers=(log, {**log, "name": "logits"}),
        counters={"known": 1, "used": 6},
    )
    runtime.buffers["hidden"][:] = np.arange(20).reshape(10, 2)
    runtime.logits()
    assert [arrays["hidden"] for _, arrays in calls.made] == [
        [[2, 3], [4, 5], [6, 7]],
        [[8, 9], [10, 11]],
    ]
    assert runtime.numbers["known"] == 6
    runtime.logits()
    assert len(calls.made) == 2, "no rows, no call"


def catalyst_block(**more: Any) -> dict[str, Any]:
    over = {"ids": "catalyst", "most": "three"}
    return read_block(over=over, lend=True, count="asked", **more)


def test_catalyst_lies_behind_the_cache_and_is_taken_back(
    make: Callable[..., Any], calls: Calls
) -> None:
    text = {"catalyst": {"ids": [51, 52, 53, 54]}}
    counters = {"used": 4, "tokens": 9, "reserved": 4}
    runtime = make({"cycle": [catalyst_block()]}, text=text, counters=counters)
    runtime.cycle(-1)
    assert calls.made == [
        ("step", {"tokens": [[51, 52, 53]], "positions": [[9, 10, 11]]}),
        ("step", {"tokens": [[54]], "positions": [[12]]}),
    ]
    numbers = runtime.numbers
    assert (numbers["used"], numbers["tokens"], numbers["asked"]) == (4, 9, 4)
    assert numbers["start"] == 4
    runtime.cycle(-1)
    assert runtime.numbers["asked"] == 4, "counted anew"


def test_the_beginning_of_the_text_is_its_catalyst(make: Callable[..., Any], calls: Calls) -> None:
    text = {"catalyst": {"beginning": 4}, "separator": [70]}
    runtime = make({"read": [read_block()], "cycle": [CYCLE, catalyst_block()]}, text=text)
    runtime.read([1, 2, 3, 4, 5, 6])
    calls.made.clear()
    runtime.cycle(-1)
    assert runtime.beginning == [1, 2, 3, 4]
    # Cut to the 2 slots that are reserved; the first block has made `used` 4.
    assert calls.made == [("step", {"tokens": [[70, 1]], "positions": [[6, 7]]})]


NEWEST = {"ids": "newest", "count": "three", "most": "two"}


def test_the_newest_tokens_are_read_once_more_where_they_lie(
    make: Callable[..., Any], calls: Calls
) -> None:
    again = read_block(over=NEWEST, count="asked")
    score = {"set": {"a": "start"}}
    runtime = make({"read": [read_block()], "cycle": [again, score]})
    runtime.read([1, 2, 3, 4, 5])
    calls.made.clear()
    runtime.cycle(-1)
    assert calls.made == [
        ("step", {"tokens": [[3, 4]], "positions": [[2, 3]]}),
        ("step", {"tokens": [[5]], "positions": [[4]]}),
    ]
    numbers = runtime.numbers
    assert (numbers["used"], numbers["tokens"], numbers["asked"]) == (5, 5, 3)
    assert numbers["a"] == 2, "where the loop began, also in the block that follows"


@pytest.mark.parametrize(("kept", "count"), [(4, 1), (1, 3), (5, 0)])
def test_no_more_than_were_read_since_the_last_cycle(
    make: Callable[..., Any], calls: Calls, kept: int, count: int
) -> None:
    again = read_block(over=NEWEST, count="asked")
    counters = {"used": 5, "tokens": 5, "kept": kept}
    runtime = make({"cycle": [again]}, counters=counters)
    runtime.cycle(-1)
    assert runtime.numbers["asked"] == count
    assert sum(len(arrays["tokens"][0]) for _, arrays in calls.made) == count
    assert (runtime.numbers["used"], runtime.numbers["tokens"]) == (5, 5)


def noted(name: str, block: dict[str, Any] | None = None) -> dict[str, Any]:
    """A block that runs a program without tensors."""
    return {"do": [{"run": name}], **(block or {})}


def test_blocks_run_in_order_and_only_when(make: Callable[..., Any], calls: Calls) -> None:
    programs = {name: program(name, []) for name in ("x", "y", "z")}
    blocks = [noted("x", {"when": ["a", "b"]}), noted("y", {"when": ["b", "a"]}), noted("z")]
    make({"cycle": blocks}, programs).cycle(-1)
    assert [name for name, _ in calls.made] == ["x", "z"]
    calls.made.clear()
    make({"cycle": blocks}, programs, counters={"a": 20}).cycle(-1)
    assert [name for name, _ in calls.made] == ["z"], "equal is not less"


def test_all_values_are_read_before_any_is_set(make: Callable[..., Any]) -> None:
    runtime = make({"cycle": [{"set": {"a": "b", "b": "a"}, "add": ["a"]}]}, counters={"n": 5})
    runtime.cycle(-1)
    assert (runtime.numbers["a"], runtime.numbers["b"]) == (20, 15), "n is added first"


def test_rows_are_copied_after_the_runs_and_before_counters_change(
    make: Callable[..., Any], calls: Calls
) -> None:
    log = {"name": "hidden", "role": "hidden", "dtype": "float32", "shape": [4, 2]}
    fill = program("fill", [tensor("hidden", 4, 2, dtype="float32")])
    block = {"do": [{"run": "fill", "bind": {"hidden": "hidden"}}]}
    block |= {"after": [["hidden", "three", "one"]], "set": {"kept": "two"}}
    runtime = make({"cycle": [block]}, {"fill": fill}, buffers=(log,))
    calls.then = lambda name, arrays: np.copyto(arrays["hidden"], np.arange(8).reshape(4, 2))
    runtime.cycle(-1)
    assert runtime.buffers["hidden"].tolist() == [[0, 1], [6, 7], [4, 5], [6, 7]]


def test_each_layer_swaps_with_one_spare(make: Callable[..., Any], calls: Calls) -> None:
    shape = {"role": "key", "dtype": "float32", "shape": [1]}
    buffers = tuple({"name": name, **shape} for name in ("key_0", "key_1", "spare"))
    run = {
        "run": "evict",
        "each": [0, 1],
        "bind": {"key": "key_*", "key_out": "spare"},
        "ints": {"layer": "layer"},
        "swap": [["key_*", "spare"]],
    }
    evict = program(
        "evict",
        [tensor("key", 1, dtype="float32"), tensor("layer", 1, dtype="int32")],
        [tensor("key_out", 1, dtype="float32")],
    )
    runtime = make({"cycle": [{"do": [run]}]}, {"evict": evict}, buffers=buffers)
    runtime.buffers["key_0"][:], runtime.buffers["key_1"][:] = 5, 7
    first = runtime.buffers["key_0"]
    calls.then = lambda name, arrays: np.copyto(arrays["key_out"], arrays["key"] + 100)
    runtime.cycle(-1)
    assert [runtime.buffers[name].tolist() for name in ("key_0", "key_1")] == [[105], [107]]
    assert runtime.buffers["key_1"] is first, "the first layer's old memory"
    assert [arrays["layer"] for _, arrays in calls.made] == [[0], [1]]


def test_a_block_swaps_when_its_runs_are_over(make: Callable[..., Any]) -> None:
    buffers = tuple(
        {"name": name, "role": "kept", "dtype": "int64", "shape": [2]} for name in ("p", "q")
    )
    runtime = make({"cycle": [{"swap": [["p", "q"]]}]}, buffers=buffers)
    p, q = runtime.buffers["p"], runtime.buffers["q"]
    runtime.cycle(-1)
    assert runtime.buffers["p"] is q
    assert runtime.buffers["q"] is p


def test_an_output_is_read_into_a_counter(make: Callable[..., Any], calls: Calls) -> None:
    see = program("see", [], [tensor("seen", 1, dtype="int32"), tensor("stays", 2)])
    runtime = make({"cycle": [{"do": [{"run": "see", "read": {"seen": "known"}}]}]}, {"see": see})

    def then(name: str, arrays: dict) -> None:
        assert list(arrays) == ["seen"], "what is not bound is not wanted"
        arrays["seen"][:] = 42

    calls.then = then
    runtime.cycle(-1)
    assert runtime.numbers["known"] == 42


def grouped(**more: Any) -> tuple[dict[str, Any]]:
    group = {"name": "w", "used": "used_1", "kept": "kept_1", "slots": 5, "layers": [1]}
    return ({**group, **more},)


COMPACT = {"do": [{"run": "see"}], "set": {"used_1": "two", "kept_1": "two"}}


def sizes_of(calls: Calls) -> list[str | int]:
    return [len(arrays["tokens"][0]) if arrays else name for name, arrays in calls.made]


def test_a_group_without_room_is_compacted_first(make: Callable[..., Any], calls: Calls) -> None:
    block = read_block(add=[*FILL, "used_1"])
    programs = {"step": step_program(), "see": program("see", [])}
    counters = {"used_1": 0, "kept_1": 0}
    schedule = {"read": [block], "compact": {"w": [COMPACT]}}
    runtime = make(
        schedule, programs, groups=grouped(slots=6), counters=counters, sizes={"capacity": 16}
    )
    runtime.read(list(range(11)))
    assert sizes_of(calls) == [3, 3, "see", 3, "see", 2], "6 entries fit"
    assert runtime.numbers["used_1"] == 4


def test_a_group_of_blocks_ends_steps_at_them(make: Callable[..., Any], calls: Calls) -> None:
    block = read_block(add=[*FILL, "used_1"])
    programs = {"step": step_program(), "see": program("see", [])}
    counters = {"used_1": 0, "kept_1": 0}
    schedule = {"read": [block], "compact": {"w": [COMPACT]}}
    groups = grouped(slots=99, align="three")
    runtime = make(schedule, programs, groups=groups, counters=counters, sizes={"capacity": 16})
    runtime.read([0])
    runtime.read(list(range(7)))
    # 1 and 2 tokens are a block; it is compacted before what follows, not while it is empty.
    assert sizes_of(calls) == [1, 2, "see", 3, "see", 2]


def test_a_group_makes_room_for_the_catalyst(make: Callable[..., Any], calls: Calls) -> None:
    programs = {"step": step_program(), "see": program("see", [])}
    counters = {"used_1": 4, "kept_1": 0, "used": 6, "tokens": 6}
    schedule = {"cycle": [catalyst_block()], "compact": {"w": [COMPACT]}}
    text = {"catalyst": {"ids": [51, 52]}}
    make(schedule, programs, groups=grouped(), counters=counters, text=text).cycle(-1)
    assert sizes_of(calls) == ["see", 2]


def test_kept_tokens(make: Callable[..., Any]) -> None:
    places = {"role": "token_position", "dtype": "int64", "shape": [2, 8]}
    full = {"name": "t_0", "layer": 0, "saved": ["zero", "kept"], **places}
    spare = {"name": "spare", **places}
    of_group = {"name": "t_w", "group": "w", "saved": ["zero", "kept_1"], **places}
    counters = {"used": 4, "kept": 2, "tokens": 9, "used_1": 3, "kept_1": 1}
    runtime = make(
        {},
        groups=grouped(),
        buffers=(full, of_group, spare, {**spare, "name": "spare_w", "group": "w"}),
        counters=counters,
    )
    runtime.groups[0] = runtime.groups[0]._replace(layers=[0])
    runtime.buffers["t_0"][:, :2] = [[0, 5], [1, 6]]
    runtime.buffers["t_w"][:, :1] = [[4], [5]]
    assert runtime.kept_tokens(0) == [[0, 5, 7, 8], [1, 6, 7, 8]]
    assert runtime.kept_tokens(1) == [[4, 7, 8], [5, 7, 8]]


@pytest.mark.parametrize("kind", ["Block", "Run", "Over", "Group", "Buffer", "Program", "Manifest"])
def test_unknown_fields_are_refused(one_file: ModuleType, kind: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'magic'"):
        getattr(one_file, kind)(magic=1)


def scatter_model() -> onnx.ModelProto:
    """Write ids as numbers to the slots from `used` on: a cache of one number a slot."""
    nodes = [
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Squeeze", ["shape"], ["count"]),
        helper.make_node("Range", ["zero", "count", "one"], ["row"]),
        helper.make_node("Add", ["row", "used"], ["slot"]),
        helper.make_node("Cast", ["tokens"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("ScatterElements", ["key", "slot", "number"], ["key_out"], axis=0),
        helper.make_node("ReduceMax", ["tokens"], ["most"], keepdims=1),
    ]
    integer, number = TensorProto.INT64, TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("tokens", integer, ["n"]),
            helper.make_tensor_value_info("used", integer, [1]),
            helper.make_tensor_value_info("key", number, ["slots"]),
        ],
        [
            helper.make_tensor_value_info("key_out", number, ["slots"]),
            helper.make_tensor_value_info("most", integer, [1]),
        ],
        [helper.make_tensor(n, integer, [], [v]) for n, v in (("zero", 0), ("one", 1))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def test_a_program_updates_the_cache_in_place(one_file: ModuleType, tmp_path: Path) -> None:
    onnx.save(scatter_model(), tmp_path / "step.onnx")
    step = program(
        "step.onnx",
        [tensor("tokens", "n"), tensor("used", 1), tensor("key", "slots", dtype="float32")],
        [tensor("key_out", "slots", dtype="float32"), tensor("most", 1)],
    )
    run = {
        "run": "step",
        "bind": {"tokens": ["ids", "used", "n"], "key": "key"},
        "ints": {"used": "used"},
        "read": {"most": "a"},
    }
    cache = {"name": "key", "role": "key", "dtype": "float32", "shape": ["capacity"]}
    manifest = manifest_of(
        one_file,
        {"read": [read_block(do=[run])]},
        {"step": {**step, "updates": {"key_out": "key"}}},
        buffers=(cache,),
    )
    runtime = one_file.Runtime(tmp_path, manifest, {})
    cache_memory = runtime.buffers["key"]
    runtime.read([31, 33, 32, 34, 30])
    assert cache_memory.tolist() == [31, 33, 32, 34, 30, 0, 0, 0]
    assert runtime.numbers["a"] == 34
