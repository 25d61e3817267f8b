"""Programs and a policy -> how the artifact is run: numbers, groups, buffers, blocks."""

from dataclasses import dataclass

from lcc.artifact.schedule import BufferSpec, Column, Group, Schedule
from lcc.config import HEAD_ROWS, NEWEST_QUERIES, SNAPSHOTS, CacheConfig
from lcc.ir.plan import BlockSparse, Full
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.passes.policies import EvictionPolicy
from lcc.passes.programs.archive_blocks import (
    ARCHIVE_COUNTERS,
    SCAN_ROWS,
    archive_buffers,
    columns_of,
)
from lcc.passes.programs.blocks import Blocks
from lcc.passes.programs.buffers import buffers_of, keeps_marks, mark_name
from lcc.passes.programs.cycle import CycleLayer, sparse_kind_of


@dataclass(frozen=True)
class RunPlan:
    """How an artifact is run, as the manifest has it."""

    constants: dict[str, int]
    counters: dict[str, int]
    groups: tuple[Group, ...]
    buffers: tuple[BufferSpec, ...]
    schedule: Schedule
    archive: tuple[Column, ...] = ()


def run_plan(
    built: list[Program],
    programs: list[Program],
    layers: list[CycleLayer],
    cache: CacheConfig,
    policy: EvictionPolicy,
    *,
    every_row: bool = False,
    chooses_rows: bool = True,
) -> RunPlan:
    """Say how programs are run.

    built       as the artifact's main target builds them: says what keys and values are kept in
    programs    before any target has rewritten them
    every_row       some target's steps hand out the queries of all rows
    chooses_rows    some target's steps are told whose queries to hand out
    """
    blocks = Blocks(programs, layers, cache, policy, chooses_rows=chooses_rows)
    groups = _groups(layers)
    schedule = Schedule(
        read=(blocks.read(),),
        cycle=blocks.cycle(),
        logits=(blocks.logits(),),
        nll=blocks.nll(),
        flush=blocks.flush(),
        recall=blocks.recall(),
        compact={group.name: blocks.compact(group) for group in groups[1:]},
        marks=_marks(programs, policy),
        log=blocks.log,
    )
    reads_catalyst = policy.queries == "catalyst" and bool(blocks.scored)
    reserves = reads_catalyst or blocks.archive.here
    constants = _constants(cache, reserves=reserves)
    counters = _counters(len(groups) - 1, seed=getattr(policy.options, "seed", 0))
    if schedule.marks:
        counters["marked"] = 0
    if any(program.with_role(Role.STATE) for program in programs):
        constants["snapshots"] = SNAPSHOTS
    buffers = [*buffers_of(built, layers, cache, policy, every_row=every_row)]
    if blocks.archive.here:
        constants["scan_rows"] = SCAN_ROWS
        counters |= dict.fromkeys(ARCHIVE_COUNTERS, 0)
        buffers += archive_buffers(layers, cache, policy)
    return RunPlan(
        constants=constants,
        counters=counters,
        groups=groups,
        buffers=tuple(buffers),
        schedule=schedule,
        archive=tuple(columns_of(layers, policy)),
    )


def _marks(programs: list[Program], policy: EvictionPolicy) -> tuple[tuple[str, str], ...]:
    """Each state, and what it was where the newest tokens begin."""
    if not keeps_marks(programs, policy):
        return ()
    step = next(program for program in programs if program.is_step)
    return tuple((spec.name, mark_name(spec.name)) for spec in step.with_role(Role.STATE))


def _constants(cache: CacheConfig, *, reserves: bool) -> dict[str, int]:
    """What does not change; `reserves`: slots for a catalyst prompt, or for a question."""
    return {
        "zero": 0,
        "one": 1,
        "no_state": -1,
        "capacity": cache.capacity,
        "budget": cache.budget,
        "chunk_size": cache.chunk_size,
        "catalyst_size": cache.catalyst_size,
        "reserved": cache.catalyst_size if reserves else 0,
        "newest": NEWEST_QUERIES,
        "head_rows": HEAD_ROWS,
        "log_rows": cache.capacity + 1,
        "hidden_rows": 1 + cache.chunk_size,
    }


def _counters(kinds: int, *, seed: int) -> dict[str, int]:
    """What changes, and where it begins; `kinds`: of layers that are not full."""
    names = ("used", "kept", "tokens", "n", "start", "layer", "protected", "known", "asked")
    counters = dict.fromkeys((*names, "tick", "row"), 0)
    counters |= {"next": 1, "left": -1, "state": -1, "seed": seed}
    for number in range(1, kinds + 1):
        counters |= {f"used_{number}": 0, f"kept_{number}": 0, f"seen_{number}": 0}
    return counters


def _groups(layers: list[CycleLayer]) -> tuple[Group, ...]:
    """The full layers, then one group for each kind of others."""
    full = tuple(i for i, layer in enumerate(layers) if isinstance(layer.kind, Full))
    groups = [Group(name="full", used="used", kept="kept", slots="capacity", layers=full)]
    for number, kind in enumerate(sparse_kind_of(layers), start=1):
        members = [i for i, layer in enumerate(layers) if layer.kind == kind]
        slots = layers[members[0]].slots
        assert slots is not None
        groups.append(
            Group(
                name=f"{kind.__struct_config__.tag}_{number}",
                used=f"used_{number}",
                kept=f"kept_{number}",
                slots=slots,
                layers=tuple(members),
                align="chunk_size" if isinstance(kind, BlockSparse) else None,
            )
        )
    return tuple(groups)
