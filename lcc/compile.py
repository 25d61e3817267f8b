"""The flow: a model goes in, an artifact comes out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

import lcc
from lcc.artifact.folder import write_artifact
from lcc.artifact.manifest import BuiltEntry, Manifest, ProgramEntry
from lcc.artifact.program_entry import program_entry
from lcc.capture.export import capture
from lcc.config import BEGINNING, CompileConfig
from lcc.errors import ConfigError
from lcc.ir.program import Program
from lcc.passes.policies import make_policy
from lcc.sources.heads import check_model, load_heads
from lcc.sources.models import LoadedModel, load_model
from lcc.specialize import Specialized, specialize_within_memory
from lcc.targets import find_target
from lcc.targets.base import Target

Progress = Callable[[str, float], None]


def compile_model(
    source: str | Path | LoadedModel | nn.Module,
    output: str | Path,
    config: CompileConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Manifest:
    """Compile a decoder language model into an artifact folder, in one step or not at all.

    source      a folder, hub name, GGUF file or package; a loaded model; or a plain module that
                maps (input_ids [1, Q] int64, position_ids [1, Q] int64) to logits [1, Q, V]. One
                without a tokenizer is fed token ids. A module is in evaluation mode afterwards
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
    loaded = loaded_model(source)
    if heads is not None:
        check_model(heads, loaded.module, loaded.name, config.heads)
    if "sentence" in policy.scalars and "tokenizer.json" not in loaded.files:
        raise ConfigError(
            f"policy {policy.name} goes by sentences and {loaded.name} has no tokenizer to tell "
            "them; wanted another --policy, or a LoadedModel with tokenizer.json among its files"
        )
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


def loaded_model(source: str | Path | LoadedModel | nn.Module) -> LoadedModel:
    """What `compile_model` takes, loaded."""
    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, nn.Module):
        name = type(source).__name__
        config: Any = getattr(source, "config", None)
        if not hasattr(config, "get_text_config"):
            return LoadedModel(module=source, name=name, architecture=name)
        window = getattr(config.get_text_config(), "max_position_embeddings", None)
        return LoadedModel(source, name, config.model_type, trained_window=window)
    return load_model(os.fspath(source) if isinstance(source, Path) else source)


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
        policy=policy.config,
        heads=special.heads,
        scalars=list(policy.scalars),
        queries=policy.queries,
        programs=program_entries(special.programs, {}),
        passes=special.passes,
        memory=special.memory,
        files={},
    )
