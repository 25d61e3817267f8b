"""Loops that TVM made of operators: one nest each, shared among threads, and in vectors.

TVM has no schedules for CPUs: as they come, loops are serial and take number after number.
"""

from math import gcd, prod
from typing import Any

SPATIAL, REDUCTION = 0, 2  # TVM's kinds of loops
LENGTH = 256  # of a loop whose length is known when it runs, as far as this is of interest
FEW = 32768  # numbers, for which waking the other threads would take longer


def schedule_loops(lanes: int) -> Any:
    """A pass over the functions of a module that are not kernels of ours."""
    import tvm
    from tvm.s_tir import Schedule

    @tvm.transform.module_pass(opt_level=0, name="lcc.schedule_loops")
    def run(module: Any, _: Any) -> Any:
        changed = {}
        for name, function in module.functions_items():
            if not isinstance(function, tvm.tirx.PrimFunc) or "lcc.kernel" in function.attrs:
                continue
            body = function.body  # nests of loops have a block of this name; a sort has not
            if isinstance(body, tvm.s_tir.SBlockRealize) and body.block.name_hint == "root":
                schedule = Schedule(tvm.IRModule({"main": function}))
                _schedule(schedule, lanes)
                changed[name] = schedule.mod["main"]
        for name, function in changed.items():
            module.update_func(name, function)
        return module

    return run


def _schedule(schedule: Any, lanes: int) -> None:
    """Inline what is computed on the way, then cut the loops of what is left."""
    from tvm.s_tir import ScheduleError

    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    largest = max(_work(schedule, block) for block in blocks)
    for block in blocks[:-1]:
        if _work(schedule, block) < largest:
            continue  # of each row once, not of each number
        try:
            schedule.compute_inline(block)
        except ScheduleError:
            continue  # a reduction, or an output
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if not _sum_in_lanes(schedule, block, lanes):
            _cut(schedule, block, lanes)


def _sum_in_lanes(schedule: Any, block: Any, lanes: int) -> bool:
    """What is reduced along rows: first as many numbers as a vector has, beside each other.

    LLVM may not do this itself, because sums of float32 depend on their order.
    """
    loops, kinds = schedule.get_loops(block), [v.iter_type for v in schedule.get(block).iter_vars]
    if kinds.count(REDUCTION) != 1 or kinds[-1] != REDUCTION or len(loops) != len(kinds):
        return False
    extent = schedule.get(loops[-1]).extent
    if not hasattr(extent, "value") or int(extent) % lanes or int(extent) == lanes:
        return False
    if _along_rows(schedule, block):
        return False
    work = _work(schedule, block)
    _, lane = schedule.split(loops[-1], [None, lanes])
    partial = schedule.rfactor(lane, len(loops) - 1)
    *outer, many, lane = schedule.get_loops(partial)
    schedule.vectorize(lane)
    if outer and work >= FEW:
        schedule.parallel(schedule.fuse(*outer))
    schedule.decompose_reduction(partial, many)
    return True


def _extent(schedule: Any, loop: Any) -> int:
    """How long a loop is; where only the run will tell, a guess."""
    extent = schedule.get(loop).extent
    return int(extent) if hasattr(extent, "value") else LENGTH


def _work(schedule: Any, block: Any) -> int:
    return prod(_extent(schedule, loop) for loop in schedule.get_loops(block))


def _cut(schedule: Any, block: Any, lanes: int) -> None:
    """Share the outer loops among threads, make vectors of the innermost."""
    loops, kinds = schedule.get_loops(block), [v.iter_type for v in schedule.get(block).iter_vars]
    if len(loops) != len(kinds) or not loops or not set(kinds) <= {SPATIAL, REDUCTION}:
        return  # a sort, or another that is not a nest of loops
    work = _work(schedule, block)
    outer = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
    inner = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == REDUCTION]
    turned = inner and len(outer) > 1 and _along_rows(schedule, block)
    if turned:
        last = outer.pop()
        schedule.reorder(*outer, *inner, last)
    elif not inner:
        width = gcd(_extent(schedule, outer[-1]), lanes)
        if width > 1 and hasattr(schedule.get(outer[-1]).extent, "value"):
            outer[-1], vector = schedule.split(outer[-1], [None, width])
            schedule.vectorize(vector)
    if outer and work >= FEW:
        schedule.parallel(schedule.fuse(*outer))
    if turned:
        schedule.decompose_reduction(block, inner[0])


def _along_rows(schedule: Any, block: Any) -> bool:
    """What is reduced lies rows apart, not side by side."""
    made = schedule.get(block)
    spatial = [v.var for v in made.iter_vars if v.iter_type == SPATIAL]
    return any(region.region[-1].min.same_as(var) for region in made.reads for var in spatial[-1:])
