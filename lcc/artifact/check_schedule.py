"""Whether buffers, counters, lists and programs of a manifest fit together; opens no file.

What is refused here need not be looked for when the schedule runs: names that nothing bears, memory
of another shape or dtype, an input that nothing is bound to, a loop without an end.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from lcc.artifact.check_archive import check_archive, check_columns
from lcc.artifact.check_model import (
    check_buffer_bytes,
    check_model,
    check_numbers,
    check_updates,
    check_written,
)
from lcc.artifact.check_runs import check_run, check_swap
from lcc.artifact.check_states import check_states
from lcc.artifact.schedule import Block, BufferSpec, Group, Over, lists
from lcc.errors import ArtifactError
from lcc.ir.roles import Role

if TYPE_CHECKING:
    from lcc.artifact.manifest import Manifest, ProgramEntry

CONSTANTS = ("zero", "one", "capacity", "budget", "chunk_size", "reserved", "no_state")
COUNTERS = ("used", "kept", "tokens", "n", "start", "layer", "protected", "known", "left", "state")
DTYPES = ("float32", "float16", "int32", "int64")


def check_schedule(manifest: "Manifest", programs: Mapping[str, "ProgramEntry"]) -> None:
    """Refuse a manifest whose schedule cannot be run with these programs.

    programs    of one target, by name

    Raises:
        ArtifactError: says what, where, what was found and what was wanted.
    """
    check_numbers(manifest)
    _check_numbers(manifest)
    for group in manifest.groups:
        _check_group(manifest, group)
    _check_groups(manifest)
    names = [spec.name for spec in manifest.buffers]
    for spec in manifest.buffers:
        _check_buffer(manifest, spec)
        if names.count(spec.name) > 1:
            raise ArtifactError(f"buffers: {spec.name} is there twice")
    buffers = {spec.name: spec for spec in manifest.buffers}
    for name, role, dtype in (
        ("ids", Role.TOKENS, "int64"),
        ("logits", Role.LOGITS, "float32"),
        ("hidden", Role.HIDDEN, ""),
        ("nll", Role.ENTRY_SCORE, "float32"),
    ):
        found = buffers.get(name)
        if found is None or found.role != role or found.dtype != (dtype or found.dtype):
            raise ArtifactError(f"buffers: wanted {name}, of role {role} {dtype}".rstrip())
    _check_ids(manifest, buffers["ids"])
    check_updates(programs)
    check_model(manifest, buffers)
    check_columns(manifest)
    check_states(manifest, buffers)
    for name, blocks in lists(manifest.schedule):
        for place, block in enumerate(blocks):
            where = f"schedule: {name}, block {place}"
            _check_block(manifest, block, name, where)
            _check_names(manifest, block, where)
            _check_memory(block, buffers, where)
            check_archive(manifest, block, buffers, where)
            for run in block.do:
                check_run(manifest, programs, buffers, run, where)
                if name in ("read", "nll") and block.over and block.over.ids == "text":
                    check_written(programs, run, where)


def _check_ids(manifest: "Manifest", spec: BufferSpec) -> None:
    """There is a row for every slot, behind which a step's ids are written."""
    rows = [
        manifest.constants.get(size, 0) if isinstance(size, str) else size for size in spec.shape
    ]
    capacity = manifest.constants["capacity"]
    if len(rows) != 1 or rows[0] < capacity:
        raise ArtifactError(
            f"buffers: ids is {list(spec.shape)}, wanted capacity ({capacity}) rows"
        )


def _check_numbers(manifest: "Manifest") -> None:
    constants, counters, cache = manifest.constants, manifest.counters, manifest.cache
    if both := constants.keys() & counters.keys():
        raise ArtifactError(f"counters: {min(both)} is a constant, too")
    for kind, wanted, present in (
        ("constants", CONSTANTS, constants),
        ("counters", COUNTERS, counters),
    ):
        if missing := [name for name in wanted if name not in present]:
            raise ArtifactError(f"{kind}: no {', '.join(missing)}")
    for name in ("capacity", "budget", "chunk_size"):
        if constants[name] != getattr(cache, name):
            raise ArtifactError(
                f"constants: {name} is {constants[name]}, cache says {getattr(cache, name)}"
            )
    needed = constants["budget"] + constants["chunk_size"] + constants["reserved"]
    if needed > constants["capacity"] or constants["reserved"] < 0:
        raise ArtifactError(
            f"constants: budget + chunk_size + reserved is {needed}, wanted capacity "
            f"({constants['capacity']}) or less"
        )
    if counters["state"] != constants["no_state"]:
        raise ArtifactError(f"counters: state is {counters['state']}, wanted no_state at first")
    if (constants["zero"], constants["one"]) != (0, 1):
        raise ArtifactError("constants: wanted zero to be 0 and one to be 1")


def _check_group(manifest: "Manifest", group: Group) -> None:
    where = f"groups: {group.name}"
    for name in (group.used, group.kept):
        _known(name, manifest.counters, f"{where}: no counter")
    for size in (group.slots, group.align):
        if isinstance(size, str):
            _known(size, manifest.constants, f"{where}: no constant")
    if isinstance(group.slots, int) and group.slots < 1:
        raise ArtifactError(f"{where}: {group.slots} slots, wanted 1 or more")
    if group.align is not None and manifest.constants[group.align] < 1:
        raise ArtifactError(f"{where}: align is 0 or less, wanted 1 or more")


def _check_groups(manifest: "Manifest") -> None:
    groups = manifest.groups
    first = groups[0] if groups else None
    if first is None or (first.name, first.used, first.kept, first.slots, first.align) != (
        *("full", "used", "kept", "capacity", None),
    ):
        raise ArtifactError("groups: wanted full first, with used, kept and capacity")
    layers = sorted(layer for group in groups for layer in group.layers)
    if layers != list(range(len(manifest.model.layers))):
        raise ArtifactError(f"groups: layers {layers}, wanted each of the model's once")
    wanted = [group.name for group in groups[1:]]
    if sorted(manifest.schedule.compact) != sorted(wanted):
        raise ArtifactError(
            f"schedule: compact has lists for {sorted(manifest.schedule.compact)}, wanted "
            f"{sorted(wanted)}"
        )


def _check_buffer(manifest: "Manifest", spec: BufferSpec) -> None:
    where = f"buffers: {spec.name}"
    if spec.dtype not in DTYPES:
        raise ArtifactError(f"{where} is {spec.dtype}, wanted one of {', '.join(DTYPES)}")
    for size in spec.shape:
        if isinstance(size, str) and size in manifest.counters:  # it grows while a list runs
            if spec.saved is not None or spec.layer is not None or len(spec.shape) > 1:
                raise ArtifactError(f"{where}: size {size} is a counter, wanted a constant")
            continue
        if isinstance(size, str):
            _known(size, manifest.constants, f"{where}: no constant")
        if (manifest.constants[size] if isinstance(size, str) else size) < 1:
            raise ArtifactError(f"{where}: size {size} is less than 1")
    check_buffer_bytes(manifest, spec)
    if not 0 <= spec.axis < len(spec.shape):
        raise ArtifactError(f"{where}: axis {spec.axis} of a shape of {len(spec.shape)}")
    for name in spec.saved or ():
        _known(name, manifest.counters.keys() | manifest.constants.keys(), f"{where}: no counter")
    if spec.group is not None:
        _known(spec.group, {group.name for group in manifest.groups}, f"{where}: no group")
    of_layer = spec.layer is not None and spec.role != Role.STATE  # those are counted on their own
    if of_layer and spec.layer not in range(len(manifest.model.layers)):
        raise ArtifactError(f"{where}: layer {spec.layer}, the model has no such layer")


def _check_block(manifest: "Manifest", block: Block, name: str, where: str) -> None:
    over = block.over
    if over is None:
        return
    _check_over(over, where)
    if manifest.constants.get(over.most, 1) < 1:
        raise ArtifactError(f"{where}: most is {over.most}, which is 0 or less")
    if over.rows is not None and not _ends(block, *over.rows):
        raise ArtifactError(
            f"{where}: {over.rows[0]} does not come to {over.rows[1]} by being added to: a loop "
            "without an end"
        )
    reads = ("text", None)
    loops = {"read": reads, "nll": reads, "cycle": ("catalyst", "newest", None)}
    loops["recall"] = ("catalyst", None)
    wanted = loops.get(name, (None,))
    if over.ids not in wanted:
        raise ArtifactError(f"{where}: a loop over the ids of {over.ids}, which it does not have")


def _ends(block: Block, first: str, last: str) -> bool:
    """Whether a loop from one counter to another one has an end: nothing else changes them."""
    read = [name for run in block.do for name in run.read.values()]
    changed = [*block.add, *block.set, *read, block.count]
    return first in block.add and changed.count(first) == 1 and last not in changed


def _check_over(over: Over, where: str) -> None:
    if (over.ids is None) == (over.rows is None):
        raise ArtifactError(f"{where}: over has ids and rows, or neither; wanted one of them")
    if (over.ids == "newest") != (over.count is not None):
        raise ArtifactError(f"{where}: over has a count where ids are newest, only")


def _check_names(manifest: "Manifest", block: Block, where: str) -> None:
    """Every counter and constant that a block names exists, and only counters are changed."""
    counters, numbers = manifest.counters, manifest.constants.keys() | manifest.counters.keys()
    over = block.over
    changed = [*block.add, *block.set, *([] if block.count is None else [block.count])]
    named = [*(block.when or ()), *block.set.values(), *[n for row in block.after for n in row[1:]]]
    if over is not None:
        named += [over.most, *(over.rows or ()), *([] if over.count is None else [over.count])]
    for run in block.do:
        changed += run.read.values()
        for what in run.ints.values():
            named += [what] if isinstance(what, str) else what
        named += [
            name for what in run.bind.values() if not isinstance(what, str) for name in what[1:]
        ]
    for name in changed:
        _known(name, counters, f"{where}: no counter")
    for name in named:
        _known(name, numbers, f"{where}: no counter or constant")


def _check_memory(block: Block, buffers: Mapping[str, BufferSpec], where: str) -> None:
    for name, _, _ in block.after:
        _known(name, buffers, f"{where}: after: no buffer")
        if buffers[name].role in (Role.KEY, Role.VALUE):
            raise ArtifactError(
                f"{where}: after: {name} may lie on a device; no row of it is copied"
            )
    for one, other in block.swap:
        check_swap(one, other, buffers, where)


def _known(name: str, known: Collection[str], message: str) -> None:
    if name not in known:
        raise ArtifactError(f"{message} {name}")
