"""The flow: a model goes in, an artifact comes out."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import torch
from torch import nn

import lcc
from lcc import env
from lcc.artifact import (
    BuiltEntry,
    LayerEntry,
    Manifest,
    MemoryEntry,
    ModelEntry,
    PassEntry,
    ProgramEntry,
    write_artifact,
)
from lcc.capture import capture
from lcc.config import BEGINNING, CacheConfig, CompileConfig
from lcc.errors import ConfigError
from lcc.heads import HeadsPage, RetainingHeads, check_model, load_heads
from lcc.memory import (
    cache_number_bytes,
    largest_budget,
    memory_table,
    smallest_cache,
    total_bytes,
    weight_bytes,
)
from lcc.models import LoadedModel, load_model
from lcc.passes import default_passes, pipeline
from lcc.passes.check_chunks import check_chunks
from lcc.passes.eviction import EvictionPolicy, make_policy
from lcc.passes.eviction_programs import eviction_programs
from lcc.passes.graph import ModelGraph, shape
from lcc.passes.half_cache import half_cache
from lcc.passes.hybrid_layers import HybridLayers
from lcc.passes.split_programs import split_programs
from lcc.plan import Full, parse_plan
from lcc.program import Program
from lcc.program_entry import program_entry
from lcc.targets import find_target
from lcc.targets.base import Target

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Specialized:
    """A model specialized for one configuration, before any target has built it.

    programs    as they were captured
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
    table = memory_table(
        special.largest, layers, cache, scalars=len(policy.scalars), precision=config.precision
    )
    return replace(special, memory=table)


def compile_model(
    source: str | Path | LoadedModel | nn.Module,
    output: str | Path,
    config: CompileConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Manifest:
    """Compile a decoder language model into an artifact folder, in one step or not at all.

    source      a folder, hub name, GGUF file or package; a loaded model; or a plain module that
                maps (input_ids [1, Q] int64, position_ids [1, Q] int64) to logits [1, Q, V]
    output      the artifact's folder; replaced only when the new one is whole
    config      target, cache and policy; the defaults read text of any length
    progress    called with what is being done and the share of the work that is done, 0 to 1

    Raises LccError: ModelError, CaptureError, PassError, TargetError, ConfigError, ArtifactError.
    """
    config = config or CompileConfig()
    report = progress or (lambda *_: None)
    targets = _targets(config)
    policy = make_policy(config.policy, with_heads=config.heads is not None)
    if config.heads is not None and policy.heads == "never":
        raise ConfigError(
            f"heads were given, policy {policy.name} reads none; wanted --policy consensus or "
            "locret"
        )
    heads = load_heads(config.heads) if config.heads else None
    report("load the model", 0.0)
    loaded = _loaded(source)
    if heads is not None:
        check_model(heads, loaded.module, loaded.name, config.heads)
    if policy.queries == "catalyst":
        _check_catalyst(config, loaded)
    report("capture", 0.3)
    captured = capture(loaded.module)
    report("specialize", 0.5)
    special = specialize_within_memory(captured, config, loaded, heads, targets=targets)
    adapted = {}
    for target in targets:
        if reasons := target.refusals(special.programs):
            raise ConfigError(f"target {target.name} refuses: " + "; ".join(reasons))
        adapted[target.name] = target.adapt(special.cast[target.name])

    def fill(folder: Path) -> Manifest:
        built = {}
        for place, target in enumerate(targets):
            report(f"build for {target.name}", 0.6 + 0.35 * place / len(targets))
            programs = adapted[target.name]
            entries = program_entries(programs, target.build(programs, folder))
            built[target.name] = BuiltEntry(programs=entries, cpu=target.cpu, note=target.note)
        report("write the artifact", 0.95)
        for name, content in loaded.files.items():
            (folder / name).write_bytes(content)
        manifest = manifest_of(special, config)
        main = built.pop(config.target)
        return msgspec.structs.replace(manifest, also=built, **msgspec.structs.asdict(main))

    manifest = write_artifact(output, fill)
    report("done", 1.0)
    return manifest


def _targets(config: CompileConfig) -> list[Target]:
    """All that are asked for, the main one first, for the CPU that is asked for."""
    names = [config.target, *config.also]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"target {', '.join(sorted(twice))} is named twice")
    targets = [find_target(name) for name in names]
    if config.cpu is not None:
        if not any(target.levels for target in targets):
            raise ConfigError(f"cpu is {config.cpu}, {', '.join(names)} runs on any; leave it out")
        levels = [level for target in targets for level in target.levels]
        if config.cpu not in levels:
            raise ConfigError(f"cpu is {config.cpu!r}, wanted one of {', '.join(levels)}")
        for target in targets:
            if config.cpu in target.levels:
                target.cpu = config.cpu
    for target in targets:
        if config.precision not in target.precisions:
            wanted = ", ".join(target.precisions)
            raise ConfigError(f"precision is {config.precision}, target {target.name} has {wanted}")
        if config.kv_precision not in target.kv_precisions:
            wanted = ", ".join(target.kv_precisions)
            raise ConfigError(
                f"kv_precision is {config.kv_precision}, target {target.name} has {wanted}"
            )
        target.precision = config.precision
    return targets


def specialize_within_memory(
    captured: ModelGraph,
    config: CompileConfig,
    loaded: LoadedModel,
    heads: RetainingHeads | None = None,
    *,
    targets: Sequence[Target] = (),
) -> Specialized:
    """Specialize; with `memory_bytes`, check the contract or choose the largest budget."""
    facts = (loaded.name, loaded.architecture, loaded.trained_window, heads)
    special = specialize(captured, config, *facts, targets=targets)
    limit = config.memory_bytes
    if limit is None or (total_bytes(special.memory) <= limit and not config.fit_budget):
        _check_window(config.cache, loaded, special.model.layers)
        return special
    if not config.fit_budget:
        _check_window(config.cache, loaded, special.model.layers)
    fitting = largest_budget(
        special.largest,
        special.model.layers,
        config.cache,
        scalars=len(special.policy.scalars),
        memory_bytes=limit,
        precision=config.precision,
        longest=loaded.trained_window if config.cache.positions == "contiguous" else None,
    )
    if fitting is None:
        least = smallest_cache(config.cache)
        scalars = len(special.policy.scalars)
        table = memory_table(
            special.largest,
            special.model.layers,
            least,
            scalars=scalars,
            precision=config.precision,
        )
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
    return specialize(captured, config, *facts, targets=targets)


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


def _check_window(cache: CacheConfig, loaded: LoadedModel, layers: list[LayerEntry]) -> None:
    """Positions follow slots, so a capacity within the trained window keeps them within it."""
    window = loaded.trained_window
    if cache.positions == "absolute" or window is None:
        return
    for i, layer in enumerate(layers):
        if layer.slots is not None and layer.slots > window:
            raise ConfigError(
                f"plan: layer {i}, {layer.kind}, holds {layer.slots} entries, {loaded.name} was "
                f"trained on positions below {window}; wanted a smaller window"
            )
    if cache.capacity > window:
        raise ConfigError(
            f"capacity is {cache.capacity}, {loaded.name} was trained on positions below {window}; "
            f"compile with --capacity {window} or less"
        )


def _check_catalyst(config: CompileConfig, loaded: LoadedModel) -> None:
    """The default catalyst must fit, or no session of the artifact could begin."""
    if config.cache.catalyst_size < 1:
        raise ConfigError(
            f"catalyst_size is 0, policy {config.policy.name} runs a catalyst prompt; wanted 1 or "
            "more: --catalyst-size"
        )
    if "tokenizer.json" not in loaded.files or config.policy.catalyst == BEGINNING:
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(loaded.files["tokenizer.json"].decode())
    count = len(tokenizer.encode(config.policy.catalyst, add_special_tokens=False).ids)
    if not 0 < count <= config.cache.catalyst_size:
        raise ConfigError(
            f"the catalyst has {count} tokens, wanted 1 to catalyst_size "
            f"({config.cache.catalyst_size}); shorten --catalyst or raise --catalyst-size"
        )


def _loaded(source: str | Path | LoadedModel | nn.Module) -> LoadedModel:
    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, nn.Module):
        name = type(source).__name__
        return LoadedModel(module=source, name=name, architecture=name)
    return load_model(os.fspath(source) if isinstance(source, Path) else source)


def _size_of(program: Program, output: str) -> int:
    node = program.exported.graph.output_node().args[0][program.outputs.index(output)]
    return int(shape(node)[-1])


def program_entries(programs: list[Program], files: dict[str, str]) -> dict[str, ProgramEntry]:
    """The record of every program; `files`: program -> its file, its name where not given."""
    return {
        name: program_entry(program, files.get(name, name))
        for program in programs
        for name in program.names
    }


def manifest_of(special: Specialized, config: CompileConfig) -> Manifest:
    """What an artifact says of itself before it is built: every program in a file of its name."""
    policy = special.policy
    return Manifest(
        made_by=f"lcc {lcc.__version__}, torch {torch.__version__}",
        target=config.target,
        precision=config.precision,
        model=special.model,
        cache=special.cache,
        policy=msgspec.structs.replace(policy.config, memory=policy.memory),
        heads=special.heads,
        scalars=list(policy.scalars),
        queries=policy.queries,
        programs=program_entries(special.programs, {}),
        passes=special.passes,
        memory=special.memory,
        files={},
    )
