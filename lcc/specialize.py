"""A captured model -> the programs of one configuration, within its memory, for any target."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import torch

from lcc import env
from lcc.artifact.manifest import MemoryEntry, ModelEntry, PassEntry
from lcc.artifact.memory import (
    cache_number_bytes,
    largest_budget,
    memory_table,
    smallest_cache,
    total_bytes,
    weight_bytes,
)
from lcc.config import CacheConfig, CompileConfig, Precision
from lcc.errors import ConfigError
from lcc.ir.plan import Full, parse_plan
from lcc.ir.program import Program
from lcc.passes import default_passes, pipeline
from lcc.passes.check_chunks import check_chunks
from lcc.passes.graph import ModelGraph, shape
from lcc.passes.hybrid_layers import HybridLayers
from lcc.passes.policies import EvictionPolicy, make_policy
from lcc.passes.position_table import position_table
from lcc.passes.programs.half_cache import half_cache
from lcc.passes.programs.per_layer import eviction_programs
from lcc.passes.programs.split import split_programs
from lcc.sources.heads import HeadsPage, RetainingHeads
from lcc.sources.models import LoadedModel
from lcc.targets.base import Target


@dataclass(frozen=True)
class Specialized:
    """A model specialized for one configuration, before any target has built it.

    programs    before any target has cast them
    memory      of those that take most
    cast        target -> the programs in its precision
    """

    model: ModelEntry
    programs: list[Program]
    passes: list[PassEntry]
    cache: CacheConfig
    policy: EvictionPolicy
    memory: list[MemoryEntry]
    heads: HeadsPage | None = None
    cast: dict[str, list[Program]] = field(default_factory=dict)

    @property
    def largest(self) -> list[Program]:
        """The programs that take most, of all precisions that targets ask for."""
        programs = [self.programs] if not self.cast else list(self.cast.values())
        return max(programs, key=lambda each: (cache_number_bytes(each), weight_bytes(each)))


def specialize(
    captured: ModelGraph,
    config: CompileConfig,
    name: str,
    architecture: str,
    window: int | None,
    heads: RetainingHeads | None = None,
    *,
    targets: Sequence[Target] = (),
) -> Specialized:
    """Run the passes and split the result into programs.

    heads       what `config.heads` names, loaded, for a policy that goes by what they say
    targets     what it is for: the memory is that of the precision they compute in

    Raises PassError, or ConfigError when the memory does not suffice.
    """
    policy = make_policy(config.policy, with_heads=heads is not None)
    heads = heads if policy.heads != "never" else None
    cache = config.cache
    _check_heads(policy, heads)
    steps = default_passes(cache, queries=policy.queries is not None, heads=heads)
    graph, passes = pipeline.run(captured, steps, dump=env.dump_folder())
    if env.check_passes():
        check_chunks(captured, graph, longest=window)
    # What the plan changes is meant to change the logits: it comes after the check of the others.
    plan = parse_plan(config.plan, len(graph.calls(torch.ops.lcc.cached_attention.default)))
    if heads is not None and Full() not in plan:
        raise ConfigError("heads were given, the plan leaves no layer full that they could score")
    sizes = {"chunk_size": cache.chunk_size, "catalyst_size": cache.catalyst_size}
    hybrid = HybridLayers(plan, positions=cache.positions, **sizes)
    if any(kind != Full() for kind in plan):
        graph, passes = pipeline.run(graph, [hybrid], dump=env.dump_folder(), done=passes)
    programs = split_programs(graph, chunk_size=cache.chunk_size, capacity=cache.capacity)
    layers, weightless = eviction_programs(graph, cache, policy, plan)
    programs += weightless
    if config.kv_precision == "fp16":
        programs = [half_cache(program) for program in programs]
    model = ModelEntry(
        name=name,
        architecture=architecture,
        hidden_size=_size_of(programs[0], "hidden"),
        vocab_size=_size_of(programs[1], "logits"),
        layers=layers,
        trained_window=window,
    )
    page = None if heads is None else heads.page
    cast = {target.name: target.cast(programs) for target in targets}
    special = Specialized(model, programs, passes, cache, policy, [], page, cast)
    return replace(special, memory=_memory(special, cache, config.precision, targets))


def _memory(
    special: Specialized, cache: CacheConfig, precision: Precision, targets: Sequence[Target]
) -> list[MemoryEntry]:
    """The memory table that it has with this cache."""
    every_row = any(target.hands_out_every_row for target in targets)
    facts = (special.largest, special.model.layers, cache, special.policy)
    return memory_table(*facts, precision=precision, every_row=every_row)


def specialize_within_memory(
    captured: ModelGraph,
    config: CompileConfig,
    loaded: LoadedModel,
    heads: RetainingHeads | None = None,
    *,
    targets: Sequence[Target] = (),
) -> Specialized:
    """Specialize; with `memory_bytes`, check the contract or choose the largest budget.

    A table that the model looks positions up in ends where it was trained to, too.
    """
    rows = position_table(captured)
    if rows is not None and config.cache.positions == "absolute":
        raise ConfigError(
            f"positions are absolute, {loaded.name} has a table of {rows} and a text has no end; "
            "compile with --positions contiguous"
        )
    window = min(filter(None, (loaded.trained_window, rows)), default=None)
    facts = (loaded.name, loaded.architecture, window, heads)
    special = specialize(captured, config, *facts, targets=targets)
    limit = config.memory_bytes
    if limit is None or (total_bytes(special.memory) <= limit and not config.fit_budget):
        _check_window(config.cache, special.model)
        return special
    if not config.fit_budget:
        _check_window(config.cache, special.model)

    def table_of(cache: CacheConfig) -> list[MemoryEntry]:
        return _memory(special, cache, config.precision, targets)

    fitting = largest_budget(
        table_of,
        config.cache,
        memory_bytes=limit,
        longest=window if config.cache.positions == "contiguous" else None,
    )
    if fitting is None:
        least = smallest_cache(config.cache)
        table = table_of(least)
        raise ConfigError(
            f"memory {limit:,} bytes: no budget fits; the smallest, {least.budget} with capacity "
            f"{least.capacity}, takes {total_bytes(table):,} bytes; raise --memory"
        )
    if not config.fit_budget:
        raise ConfigError(
            f"budget {config.cache.budget} with capacity {config.cache.capacity} needs "
            f"{total_bytes(special.memory):,} bytes, --memory is {limit:,}; the largest budget "
            f"that fits is {fitting.budget} with capacity {fitting.capacity}"
        )
    config = msgspec.structs.replace(config, cache=fitting)
    special = specialize(captured, config, *facts, targets=targets)
    _check_window(fitting, special.model)
    return special


def _check_heads(policy: EvictionPolicy, heads: RetainingHeads | None) -> None:
    """The policy can do what is wanted of it with these heads, or without."""
    if policy.heads == "must" and heads is None:
        raise ConfigError(
            f"policy {policy.name} reads retaining heads, none were given; wanted --heads FILE: "
            "lcc train heads makes one"
        )
    if policy.heads == "may" and heads is not None and heads.page.teacher != "repeat":
        raise ConfigError(
            f"policy {policy.name} wants heads that were taught by repeating, these by "
            f"answers ({heads.page.trained_on}); wanted lcc train heads --teacher repeat, or "
            "--policy locret"
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


def _size_of(program: Program, output: str) -> int:
    node = program.exported.graph.output_node().args[0][program.outputs.index(output)]
    return int(shape(node)[-1])
