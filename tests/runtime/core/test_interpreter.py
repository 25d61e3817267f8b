"""Every field of a block and of a run, by hand: what is bound, and what becomes of the numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from lcc.artifact.manifest import ProgramEntry
from lcc.artifact.schedule import Block, BufferSpec, Group, Over, Run, Schedule, TensorSpec
from lcc.errors import ArtifactError
from lcc.ir.roles import Role
from lcc.runtime.core.buffers import Buffers
from lcc.runtime.core.interpreter import Interpreter

ANY = Role.ENTRY_SCORE


def tensor(name: str, *shape: int | str, dtype: str = "int64") -> TensorSpec:
    return TensorSpec(name=name, role=ANY, dtype=dtype, shape=shape)


class Recorder:
    """An engine whose programs do what a test says, and which notes what they were given."""

    def __init__(self, **programs: tuple[list[TensorSpec], list[TensorSpec]]) -> None:
        self.programs, self.does = programs, {}
        self.seen: list[tuple[str, dict]] = []  # of each call: program, copies of all arrays
        self.binds: list[tuple[str, set]] = []  # of each bind: program, names
        self.runners = 0

    def program(self, name: str) -> ProgramEntry:
        inputs, outputs = self.programs[name]
        return ProgramEntry(file=name, inputs=inputs, outputs=outputs)

    def zeros(self, shape: list, dtype: str, role: Role) -> np.ndarray:
        return np.zeros(shape, dtype)

    def runner(self, name: str) -> SimpleNamespace:
        self.runners += 1
        engine, bound = self, {}

        class Runner:
            def bind(self, arrays: dict) -> None:
                bound.update(arrays)
                engine.binds.append((name, set(arrays)))

            def __call__(self, arrays: dict) -> None:
                every = bound | arrays
                engine.seen.append((name, {n: array.copy() for n, array in every.items()}))
                if name in engine.does:
                    engine.does[name](every)

        return Runner()


NUMBERS = {"zero": 0, "one": 1, "two": 2, "three": 3, "chunk": 3, "most": 99, "n": 0, "start": -5}
NUMBERS |= {"used": 0, "kept": 0, "tokens": 100, "a": 0, "b": 0, "c": 7, "layer": -1}


class Machine:
    """An interpreter of some blocks, with buffers that are enough for the tests below."""

    def __init__(self, *blocks: Block, **programs: tuple) -> None:
        def buffer(name: str, *shape: int | str, axis: int = 0) -> BufferSpec:
            return BufferSpec(name=name, role=ANY, dtype="int64", shape=shape, axis=axis)

        self.numbers, self.blocks, self.engine = dict(NUMBERS), blocks, Recorder(**programs)
        specs = [buffer("ids", 20), buffer("rows", 10, 2), buffer("across", 2, 10, axis=1)]
        specs += [buffer(f"x_{i}", 4) for i in range(3)] + [buffer("spare", 4)]
        self.buffers = Buffers(specs, self.numbers, self.engine)
        full = Group(name="full", used="used", kept="kept", slots=20, layers=())
        manifest = SimpleNamespace(
            schedule=Schedule(read=blocks, logits=(), nll=()), groups=(full,)
        )
        self.interpreter = Interpreter(manifest, self.numbers, self.buffers, self.engine)

    def run(self, ids: tuple[int, ...] = ()) -> list[dict]:
        """Run all blocks; what each call was given."""
        self.interpreter.run(self.blocks, ids)
        return [arrays for _, arrays in self.engine.seen]

    def __getitem__(self, name: str) -> list:
        return self.buffers.arrays[name].tolist()


NOTHING: tuple[list, list] = ([], [])
COUNTS = {"p": ([tensor("n", 1), tensor("used", 1), tensor("start", 1)], [])}
TELL = Run(run="p", ints={"n": "n", "used": "used", "start": "start"})


def told(seen: list[dict]) -> list[tuple[int, ...]]:
    return [tuple(int(a[name].item()) for name in ("n", "used", "start")) for a in seen]


def test_over_ids_writes_each_part_to_the_row_of_used():
    over = Over(ids="text", most="chunk")
    machine = Machine(Block(over=over, do=(TELL,), add=("used", "a")), **COUNTS)
    machine.numbers["used"] = 4
    assert told(machine.run((9, 8, 7, 6, 5))) == [(3, 4, 4), (2, 7, 4)]
    assert machine["ids"][3:10] == [0, 9, 8, 7, 6, 5, 0]
    assert (machine.numbers["used"], machine.numbers["a"]) == (9, 5)
    assert Machine(Block(over=over, do=(TELL,)), **COUNTS).run(()) == []


def test_over_rows_goes_on_while_one_counter_is_less():
    over = Over(rows=("a", "c"), most="three")
    machine = Machine(Block(over=over, do=(TELL,), add=("a",)), **COUNTS)
    machine.numbers["used"] = 6
    assert told(machine.run()) == [(3, 6, 6), (3, 6, 6), (1, 6, 6)]
    assert machine.numbers["a"] == 7
    assert len(machine.run()) == 3  # nothing is left


@pytest.mark.parametrize("most", [0, -1])
@pytest.mark.parametrize("over", [Over(ids="text", most="b"), Over(rows=("a", "c"), most="b")])
def test_none_at_a_time_is_refused(over, most):
    """Not read for ever, and not left out."""
    machine = Machine(Block(over=over, do=(TELL,), add=("a",)), **COUNTS)
    machine.numbers["b"] = most
    with pytest.raises(ArtifactError, match=f"schedule: b is {most}, wanted 1 or more"):
        machine.run((1, 2))


def test_what_numbers_and_arrays_do_not_allow_is_the_schedules_fault():
    """An error of one line, whatever NumPy or Python say; what caused it is kept."""
    machine = Machine(Block(do=(Run(run="p", ints={"n": "nobody"}),)), **COUNTS)
    words = "the schedule cannot be run: KeyError: 'nobody'; if this lcc"
    with pytest.raises(ArtifactError, match=words) as caught:
        machine.run()
    assert isinstance(caught.value.__cause__, KeyError)


def test_newest_ids_are_read_where_they_lie():
    over = Over(ids="newest", count="c", most="three")
    machine = Machine(Block(over=over, do=(TELL,), add=("used", "tokens")), **COUNTS)
    machine.buffers.arrays["ids"][:12] = range(100, 112)
    machine.numbers |= {"used": 12, "kept": 2}
    assert told(machine.run()) == [(3, 5, 5), (3, 8, 5), (1, 11, 5)]  # 7: as many as are asked for
    assert machine["ids"][:12] == [*range(100, 112)]
    assert (machine.numbers["used"], machine.numbers["tokens"]) == (12, 100)
    machine.numbers["kept"] = 8
    machine.engine.seen.clear()
    assert told(machine.run()) == [(3, 8, 8), (1, 11, 8)]  # 4: those since the last cycle
    machine.numbers["kept"] = 12
    machine.engine.seen.clear()
    assert machine.run() == []


def test_once_keeps_what_n_and_start_were():
    machine = Machine(Block(do=(TELL,), add=("a",)), **COUNTS)
    machine.numbers["n"] = 5
    assert told(machine.run()) == [(5, 0, -5)]
    assert machine.numbers["a"] == 5


def test_when():
    machine = Machine(Block(when=("a", "b"), do=(TELL,)), **COUNTS)
    assert machine.run() == []
    machine.numbers["b"] = 1
    assert len(machine.run()) == 1


def test_lend_and_count():
    over = Over(ids="catalyst", most="two")
    block = Block(over=over, do=(TELL,), add=("used", "a"), lend=True, count="b")
    machine = Machine(block, **COUNTS)
    machine.numbers |= {"used": 3, "a": 1, "b": 44}
    assert told(machine.run((1, 2, 3))) == [(2, 3, 3), (1, 5, 3)]
    assert [machine.numbers[name] for name in ("used", "a", "b")] == [3, 1, 3]


def test_set_reads_all_before_it_sets_any_and_after_it_adds():
    over = Over(ids="text", most="chunk")
    machine = Machine(Block(over=over, add=("used",), set={"a": "used", "used": "a", "b": "two"}))
    machine.numbers["a"] = 5
    machine.run((1, 2))
    assert [machine.numbers[name] for name in ("used", "a", "b")] == [5, 2, 2]


def test_after_copies_rows_along_the_axis_before_counters_change():
    over = Over(ids="text", most="chunk")
    after = (("rows", "used", "three"), ("across", "two", "c"))
    machine = Machine(Block(over=over, after=after, add=("used",)))
    machine.buffers.arrays["rows"][1] = 5, 6
    machine.buffers.arrays["across"][:, 2] = 7, 8
    machine.numbers["used"] = 1
    machine.run((1,))
    assert machine["rows"][3] == [5, 6]
    assert [row[7] for row in machine["across"]] == [7, 8]
    machine.numbers["used"] = 10
    with pytest.raises(ArtifactError, match=r"rows: rows 10 \.\. 10 of 10"):
        machine.run((1,))


def test_one_takes_the_place_of_a_program_where_n_is_one():
    over = Over(ids="text", most="three")
    machine = Machine(Block(over=over, do=(Run(run="p", one="q"),)), p=NOTHING, q=NOTHING)
    machine.run((1, 2, 3, 4))
    assert [name for name, _ in machine.engine.seen] == ["p", "q"]


def test_each_replaces_the_star_and_tells_the_layer():
    run = Run(
        run="p",
        each=(2, 0),
        bind={"x": "x_*", "y": ("x_*", "one", "two"), "out": "spare"},
        ints={"i": "layer"},
        swap=(("x_*", "spare"),),
    )
    inputs = [tensor("x", 4), tensor("y", "k"), tensor("i", 1)]
    machine = Machine(Block(do=(run,)), p=(inputs, [tensor("out", 4)]))
    machine.engine.does["p"] = lambda a: a["out"].fill(100 + a["i"].item())
    for i in range(3):
        machine.buffers.arrays[f"x_{i}"][:] = i
    seen = machine.run()
    assert [(a["x"][0], a["y"].tolist(), a["i"].item()) for a in seen] == [
        (2, [2, 2], 2),
        (0, [0, 0], 0),
    ]
    # Layer 2 is what the program wrote; its old memory was what layer 0 was written to.
    assert [machine[name][0] for name in ("x_0", "x_1", "x_2", "spare")] == [100, 1, 102, 0]


def test_swaps_of_a_block():
    machine = Machine(Block(swap=(("x_0", "x_1"), ("x_1", "x_2"))))
    for i in range(3):
        machine.buffers.arrays[f"x_{i}"][:] = i
    machine.run()
    assert [machine[f"x_{i}"][0] for i in range(3)] == [1, 2, 0]


def test_rows_are_bound_in_the_tensors_shape_and_are_the_memory_itself():
    inputs = [tensor("flat", 1, "k", 2), tensor("fixed", 4, 2), tensor("one", 1, 2)]
    rows = ("rows", "two", "three")
    run = Run(
        run="p", bind={"flat": rows, "fixed": ("rows", "one", "three"), "one": rows, "out": rows}
    )
    machine = Machine(Block(do=(run,)), p=(inputs, [tensor("out", "k", 2)]))
    machine.buffers.arrays["rows"][:] = np.arange(20).reshape(10, 2)
    machine.engine.does["p"] = lambda a: a["out"].fill(-1)
    (seen,) = machine.run()
    assert seen["flat"].tolist() == [[[4, 5], [6, 7], [8, 9]]]
    assert seen["fixed"].tolist() == [[2, 3], [4, 5], [6, 7], [8, 9]]  # 4 rows, whatever COUNT
    assert seen["one"].tolist() == [[4, 5]]
    assert machine["rows"][1:6] == [[2, 3], [-1, -1], [-1, -1], [-1, -1], [10, 11]]


def test_rows_that_a_buffer_does_not_have():
    run = Run(run="p", bind={"x": ("rows", "c", "n")})
    machine = Machine(Block(do=(run,)), p=([tensor("x", "k", 2)], []))
    machine.numbers["n"] = 3
    machine.run()
    for first, count in ((8, 3), (-1, 3)):
        machine.numbers |= {"c": first, "n": count}
        with pytest.raises(ArtifactError, match=rf"rows: rows {first} \.\. {first + 2} of 10"):
            machine.run()


@pytest.mark.parametrize("number", [2**31, 2**53, -(2**31) - 1])
def test_numbers_of_more_than_32_bits(number):
    run = Run(run="p", ints={"i": "c"})
    machine = Machine(Block(do=(run,)), p=([tensor("i", 1, dtype="int32")], []))
    (seen,) = machine.run()
    assert seen["i"].tolist() == [7]
    machine.numbers["c"] = number
    with pytest.raises(ArtifactError, match=f"i: c is {number}, wanted a number of 32 bits"):
        machine.run()


def test_series_of_integers():
    inputs = [
        tensor("any", 1, "k"),
        tensor("fixed", 1, 4, dtype="int32"),
        tensor("single", 1, 1, dtype="int32"),
    ]
    run = Run(run="p", ints={"any": ("used", "n"), "fixed": ("tokens", "n"), "single": "c"})
    over = Over(ids="text", most="three")
    machine = Machine(Block(over=over, do=(run,), add=("used", "tokens")), p=(inputs, []))
    first, second = machine.run((1, 2, 3, 4))
    assert first["any"].tolist() == [[0, 1, 2]]
    assert second["any"].tolist() == [[3]]
    assert first["fixed"].tolist() == [[100, 101, 102, 103]]
    assert second["fixed"].tolist() == [[103, 104, 105, 106]]
    assert first["single"].tolist() == [[7]]
    assert [str(first[name].dtype) for name in ("any", "fixed")] == ["int64", "int32"]


def test_read_sets_a_counter_that_the_next_block_sees():
    run = Run(run="p", bind={"x": "x_0"}, read={"found": "b"})
    machine = Machine(
        Block(do=(run,)),
        Block(when=("a", "b"), do=(TELL,)),
        p=([tensor("x", 4), *COUNTS["p"][0]], [tensor("found", 1, dtype="int32")]),
    )
    machine.engine.does["p"] = lambda a: a["found"].fill(6) if "found" in a else None
    machine.run()
    assert machine.numbers["b"] == 6
    assert len(machine.engine.seen) == 2


def test_tensors_that_a_program_does_not_have_are_left_out():
    run = Run(
        run="p", bind={"x": "x_0", "other": "x_1"}, ints={"i": "c", "j": "c"}, read={"r": "b"}
    )
    machine = Machine(Block(do=(run,)), p=([tensor("x", 4), tensor("i", 1)], []))
    (seen,) = machine.run()
    assert set(seen) == {"x", "i"}
    assert machine.numbers["b"] == 0


def test_whole_buffers_are_bound_once_and_again_when_their_memory_moves():
    run = Run(run="p", bind={"x": "x_0", "y": "x_1", "z": ("rows", "zero", "n")}, ints={"i": "n"})
    inputs = [tensor("x", 4), tensor("y", 4), tensor("z", "k", 2), tensor("i", 1)]
    over = Over(ids="text", most="one")
    machine = Machine(Block(over=over, do=(run,)), p=(inputs, []))
    bound = machine.engine.binds
    assert bound == [("p", {"i"})]
    machine.run((1, 2, 3))
    assert [names for _, names in bound if names] == [{"i"}, {"x", "y"}]
    machine.buffers.swap("x_1", "spare")
    machine.run((1, 2))
    assert [names for _, names in bound if names] == [{"i"}, {"x", "y"}, {"y"}]
    machine.buffers.swap("x_2", "spare")  # what nobody here is bound to
    machine.run((1,))
    assert [names for _, names in bound if names] == [{"i"}, {"x", "y"}, {"y"}]
    assert machine.engine.runners == 1
