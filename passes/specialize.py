"""A captured model -> the programs of one configuration, and how they are run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import torch

from lcc import env
from lcc.artifact.manifest import LayerEntry, MemoryEntry, ModelEntry, PassEntry
from lcc.artifact.memory import largest_budget, memory_table, smallest_cache, total_bytes
from lcc.config import CacheConfig, CompileConfig
from lcc.errors import ConfigError
from lcc.ir.plan import Full
from lcc.ir.program import HEAD, Program
from lcc.ir.roles import Role
from lcc.passes import default_passes, pipeline
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import EvictionPolicy
from lcc.passes.policies.entry_scores import SENTENCE
from lcc.passes.position_table import position_table
from lcc.passes.programs.base import ProgramPass, run_program_passes
from lcc.passes.programs.cycle import CycleLayer, cycle_programs
from lcc.passes.programs.half_cache import HalfCache
from lcc.passes.programs.schedule import RunPlan, run_plan
from lcc.passes.programs.split import split_programs
from lcc.sources.heads import RetainingHeads


@dataclass(frozen=True)
class Subject:
    """What is specialized: a captured model, and what is known of it.

    trained_window  tokens it was trained to read; None = not known
    sentence_ends   [V] bool, whether a token ends a sentence; None = it has no tokenizer
    heads           trained retaining heads, where the policy goes by them
    """

    captured: ModelGraph
    name: str
    architecture: str
    trained_window: int | None = None
    sentence_ends: np.ndarray | None = None
    heads: RetainingHeads | None = None

    @property
    def window(self) -> int | None:
        """Positions that the model has: a table that it looks them up in ends them, too."""
        ends = (self.trained_window, position_table(self.captured), self.captured.positions_end)
        return min(filter(None, ends), default=None)


@dataclass(frozen=True)
class Specialized:
    """A model specialized for one configuration, before any target has built it.

    programs    before any target has rewritten them; the step and the head come first
    built       target -> the programs as it builds them
    plan        how they are run, as the main target builds them
    exact       how they are run as they are here, by the reference
    memory      of those that take most
    """

    model: ModelEntry
    layers: list[CycleLayer]
    programs: list[Program]
    passes: list[PassEntry]
    cache: CacheConfig
    policy: EvictionPolicy
    plan: RunPlan
    exact: RunPlan
    memory: list[MemoryEntry]
    built: dict[str, list[Program]]


def specialize(
    subject: Subject,
    config: CompileConfig,
    policy: EvictionPolicy,
    *,
    targets: Mapping[str, Sequence[ProgramPass]] | None = None,
    every_row: bool = False,
    archive: bool = True,
    later: list[Callable[[], None]] | None = None,
) -> Specialized:
    """Run the passes, split the result into programs, and say how they are run.

    targets     target -> its program passes
    every_row   some target's steps hand out the queries of all rows
    archive     all targets can build the programs of an archive
    later       takes the checks that read all weights, which are then not made

    Raises PassError or ConfigError.
    """
    cache, dump = config.cache, env.dump_folder()
    _check_positions(subject, cache)
    steps = default_passes(
        cache,
        policy,
        plan=config.plan,
        heads=subject.heads,
        captured=subject.captured if env.check_passes() else None,
        window=subject.window,
        later=later,
    )
    graph, passes = pipeline.run(subject.captured, steps, dump=dump)
    _check_biases(graph, subject, cache)
    kinds = graph.plan or (Full(),) * len(graph.calls(torch.ops.lcc.cached_attention.default))
    if subject.heads is not None and Full() not in kinds:
        raise ConfigError("heads were given, the plan leaves no layer full that they could score")
    ends = None
    if SENTENCE in policy.scores:
        if subject.sentence_ends is None:
            raise ConfigError(
                f"policy {policy.name} goes by sentences; wanted the sentence_ends of the tokenizer"
            )
        ends = torch.from_numpy(subject.sentence_ends)
    programs = split_programs(graph, chunk_size=cache.chunk_size, capacity=cache.capacity)
    layers, weightless = cycle_programs(
        graph, cache, policy, kinds, sentence_ends=ends, archive=archive
    )
    own: list[ProgramPass] = [HalfCache()] if config.kv_precision == "fp16" else []
    programs = run_program_passes([*programs, *weightless], own, dump=dump)
    built = {
        name: run_program_passes(programs, each, dump=dump, label=name)
        for name, each in (targets or {}).items()
    }
    made = Specialized(
        model=_model(subject, programs, layers),
        layers=layers,
        programs=programs,
        passes=passes,
        cache=cache,
        policy=policy,
        plan=run_plan(
            next(iter(built.values()), programs),
            programs,
            layers,
            cache,
            policy,
            every_row=every_row,
            chooses_rows=_choose_rows(list(built.values()) or [programs]),
        ),
        exact=run_plan(programs, programs, layers, cache, policy),
        memory=[],
        built=built,
    )
    return replace(made, memory=_memory(made, cache, config, every_row=every_row))


def specialize_within_memory(
    subject: Subject,
    config: CompileConfig,
    policy: EvictionPolicy,
    *,
    targets: Mapping[str, Sequence[ProgramPass]] | None = None,
    every_row: bool = False,
    archive: bool = True,
    later: list[Callable[[], None]] | None = None,
) -> Specialized:
    """Specialize; with `memory_bytes`, check the contract or choose the largest budget."""
    how: dict[str, Any] = {
        "targets": targets,
        "every_row": every_row,
        "archive": archive,
        "later": later,
    }
    special = specialize(subject, config, policy, **how)
    limit = config.memory_bytes
    fits = limit is None or total_bytes(special.memory) <= limit
    if not config.fit_budget or limit is None:
        _check_window(config.cache, special.model)
    if limit is None or (fits and not config.fit_budget):
        return special

    def table_of(cache: CacheConfig) -> list[MemoryEntry]:
        return _memory(special, cache, config, every_row=every_row)

    def largest() -> CacheConfig | None:
        longest = subject.window if config.cache.positions == "contiguous" else None
        return largest_budget(table_of, config.cache, memory_bytes=limit, longest=longest)

    fitting = largest()
    if fitting is not None and not config.fit_budget:
        raise ConfigError(
            f"budget {config.cache.budget} with capacity {config.cache.capacity} needs "
            f"{total_bytes(special.memory):,} bytes, --memory is {limit:,}; the largest budget "
            f"that fits is {fitting.budget} with capacity {fitting.capacity}"
        )
    while fitting is not None:
        chosen = msgspec.structs.replace(config, cache=fitting)
        special = specialize(subject, chosen, policy, **how)
        if total_bytes(special.memory) <= limit:
            _check_window(fitting, special.model)
            return special
        fitting = largest()  # with tables of angles as long as this cache
    least = smallest_cache(config.cache)
    raise ConfigError(
        f"memory {limit:,} bytes: no budget fits; the smallest, {least.budget} with capacity "
        f"{least.capacity}, takes {total_bytes(table_of(least)):,} bytes; raise --memory"
    )


def _choose_rows(targets: list[list[Program]]) -> bool:
    """Whether some step is told whose queries to hand out."""
    return any(each.with_role(Role.ROWS) for programs in targets for each in programs)


def _memory(
    special: Specialized, cache: CacheConfig, config: CompileConfig, *, every_row: bool
) -> list[MemoryEntry]:
    """The memory table with this cache, of the target that takes most."""
    tables = []
    for programs in list(special.built.values()) or [special.programs]:
        plan = run_plan(
            programs,
            special.programs,
            special.layers,
            cache,
            special.policy,
            every_row=every_row,
        )
        tables.append(
            memory_table(
                programs,
                plan.buffers,
                plan.groups,
                plan.constants,
                precision=config.precision,
            )
        )
    return max(tables, key=total_bytes)


def _model(subject: Subject, programs: list[Program], layers: list[CycleLayer]) -> ModelEntry:
    head = next(program for program in programs if HEAD in program.names)
    (hidden,) = head.with_role(Role.HIDDEN)
    logits = next(spec for spec in head.outputs if spec.role == Role.LOGITS)
    return ModelEntry(
        name=subject.name,
        architecture=subject.architecture,
        hidden_size=int(hidden.shape[1]),
        vocab_size=int(logits.shape[1]),
        layers=[
            LayerEntry(
                query_heads=layer.query_heads,
                kv_heads=layer.kv_heads,
                head_size=layer.head_size,
                window_size=layer.window or None,
                kind=layer.kind,
                slots=layer.slots,
            )
            for layer in layers
        ],
        trained_window=subject.window,
    )


def _check_positions(subject: Subject, cache: CacheConfig) -> None:
    rows = position_table(subject.captured)
    if rows is not None and cache.positions == "absolute":
        raise ConfigError(
            f"positions are absolute, {subject.name} has a table of {rows} and a text has no end; "
            "compile with --positions contiguous"
        )
    end = subject.captured.positions_end
    if end is not None and cache.positions == "absolute":
        raise ConfigError(
            f"positions are absolute, {subject.name} has other angles in texts of more than {end} "
            "tokens (LongRoPE or dynamic scaling); compile with --positions contiguous"
        )


def _check_biases(graph: ModelGraph, subject: Subject, cache: CacheConfig) -> None:
    sites = graph.calls(torch.ops.lcc.cached_attention.default)
    if cache.positions == "absolute" and any(
        each is not None for s in sites for each in s.args[11:]
    ):
        raise ConfigError(
            f"positions are absolute, {subject.name} adds a bias by distance (ALiBi), which "
            "follows slots; compile with --positions contiguous"
        )


def _check_window(cache: CacheConfig, model: ModelEntry) -> None:
    """Positions follow slots, so a capacity within the trained window keeps them within it."""
    window = model.trained_window
    if cache.positions == "absolute" or window is None:
        return
    for i, layer in enumerate(model.layers):
        if layer.slots is not None and layer.slots > window:
            raise ConfigError(
                f"plan: layer {i}, {layer.kind}, holds {layer.slots} entries, {model.name} was "
                f"trained on positions below {window}; wanted a smaller window"
            )
    if cache.capacity > window:
        raise ConfigError(
            f"capacity is {cache.capacity}, {model.name} was trained on positions below {window}; "
            f"compile with --capacity {window} or less"
        )
