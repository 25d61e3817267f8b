"""The flow: a model goes in, an artifact comes out."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import torch
from torch import nn

import lcc
from lcc.artifact.folder import write_artifact
from lcc.artifact.golden import GOLDEN, golden_bytes
from lcc.artifact.heads_page import HeadsPage
from lcc.artifact.manifest import CACHE_DTYPES, BuiltEntry, CacheDtype, Manifest
from lcc.artifact.program_entry import program_entries
from lcc.artifact.record_golden import record_golden
from lcc.artifact.schedule import TextFacts
from lcc.capture.export import capture
from lcc.config import CompileConfig, PolicyConfig, Precision
from lcc.errors import ConfigError
from lcc.ir.lazy_tensor import lazy_bytes
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.ir.weight_reads import reads_told, weights_kept
from lcc.passes.policies import make_policy, options_in_force
from lcc.passes.specialize import Specialized, Subject, specialize_within_memory
from lcc.sources.heads import load_heads_for
from lcc.sources.models import LoadedModel, loaded_model
from lcc.sources.text_facts import sentence_ends_for, text_facts
from lcc.sources.text_tables.tables import text_tables
from lcc.sources.weights import check_finite
from lcc.targets import find_targets, refuse
from lcc.targets.reference import ReferenceEngine

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
KEPT_BYTES = 256 << 20  # of weights, while the reference reads a text for the golden


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
    config, report = config or CompileConfig(), progress or (lambda *_: None)
    targets = find_targets(config)
    policy = make_policy(config.policy, with_heads=config.heads is not None)
    report("load the model", 0.0)
    loaded = loaded_model(source, lazy=True)
    _check_few_bits(loaded, config.precision)
    heads = load_heads_for(policy, config.heads, loaded.module, loaded.name)
    report("capture", 0.25)
    captured = capture(loaded.module)
    report("specialize", 0.4)
    ends = sentence_ends_for(policy, loaded.name, loaded.files, captured.vocab_size)
    checks: list[Callable[[], None]] = []  # after it is decided that the model fits
    special = specialize_within_memory(
        Subject(captured, loaded.name, loaded.architecture, loaded.trained_window, ends, heads),
        config,
        policy,
        targets={target.name: target.passes() for target in targets},
        every_row=any(target.hands_out_every_row for target in targets),
        archive=all(target.archives for target in targets),
        later=checks,
    )
    facts = text_facts(
        loaded.files,
        vocab_size=special.model.vocab_size,
        catalyst=policy.catalyst,
        catalyst_size=special.cache.catalyst_size,
    )
    text = text_tables(loaded.files)
    facts = msgspec.structs.replace(facts, no_tables=text.missing)
    refuse(targets, special.built)
    manifest = manifest_of(special, config, heads.page if heads else None, facts)
    report("check", 0.45)
    size = lazy_bytes(loaded.module)  # of which nothing has been read up to here
    with weights_kept(KEPT_BYTES):
        if size:
            with reads_told(_in_bytes(report, "check the weights", 0.45, 0.02, size)):
                check_finite(loaded.module, loaded.name)
        with reads_told(_in_bytes(report, "read it in chunks", 0.47, 0.03, size, again=True)):
            for check in checks[-1:]:  # of the last cache that was tried
                check()

    def fill(folder: Path) -> Manifest:
        built = {}
        for place, target in enumerate(targets):
            what, share = f"build for {target.name}", 0.4 / len(targets)
            report(what, 0.5 + share * place)
            programs = special.built[target.name]
            with reads_told(_in_bytes(report, what, 0.5 + share * place, share, size)):
                entries = program_entries(programs, target.build(programs, folder))
            built[target.name] = BuiltEntry(
                programs=entries,
                cache_dtype=cache_dtype_of(programs),
                cpu=target.cpu,
                note=target.note,
            )
        main = built.pop(config.target)
        parts = {"programs": main.programs, "cpu": main.cpu, "note": main.note}
        whole = msgspec.structs.replace(manifest, also=built, **parts)
        report("record a golden", 0.9)
        engine = ReferenceEngine(special.programs)
        told = _in_bytes(report, "record a golden", 0.9, 0.1, size, again=True)
        with weights_kept(KEPT_BYTES), reads_told(told):
            golden = record_golden(whole, exact_of(manifest, special), engine, loaded.files)
        files = {**loaded.files, **text.files, GOLDEN: golden_bytes(golden)}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return whole

    written = write_artifact(output, fill)
    report("done", 1.0)
    return written


def _in_bytes(
    report: Progress, what: str, begin: float, share: float, size: int, *, again: bool = False
) -> Callable[[int], None]:
    """Report a step that begins at a share of the work by the bytes that it has read.

    size    of all weights
    again   they are read so many times as the step needs; else once
    """
    read = 0

    def tell(more: int) -> None:
        nonlocal read
        read += more
        if again:
            report(f"{what}, {read / 1e9:.1f} GB read", begin + share * read / (read + size))
        else:
            read = min(read, size)
            done = read / size if size else 1.0
            report(f"{what}, {read / 1e9:.1f} of {size / 1e9:.1f} GB", begin + share * done)

    return tell


def _check_few_bits(loaded: LoadedModel, precision: Precision) -> None:
    """Warn of levels in the file that this precision does not keep.

    Raises:
        ConfigError: the file's own levels are wanted, and it has none.
    """
    every = (getattr(each, "rounded", None) for each in loaded.module.parameters())
    known = [each for each in every if each is not None]
    if precision == "given" and not known:
        raise ConfigError(
            f"precision is given, and no weight of {loaded.name} is in levels that lcc keeps "
            "(docs/precision.md); leave --precision out, or give int8 or int4"
        )
    # int4 keeps blocks that use the lowest and the highest of 16 levels, as few do of a grid about
    # zero (Q4_0). int8 keeps those whose rows have one scale each, which few files have.
    kept = [each for each in known if each.bits == 4 and not each.about_zero]
    lost = len(known) - (len(kept) if precision == "int4" else 0)
    if lost and precision in ("int8", "int4"):
        log.warning(
            "%s: %d weights are in few bits in the file, and --precision %s rounds them anew; "
            "--precision given (onnxruntime:cpu) keeps them, lcc verify says what is lost",
            loaded.name,
            lost,
            precision,
        )


def manifest_of(
    special: Specialized, config: CompileConfig, heads: HeadsPage | None, text: TextFacts
) -> Manifest:
    """What an artifact says of itself before it is built: every program in a file of its name."""
    policy, plan = special.policy, special.plan
    return Manifest(
        made_by=f"lcc {lcc.__version__}, torch {torch.__version__}",
        target=config.target,
        precision=config.precision,
        model=special.model,
        cache=special.cache,
        policy=PolicyConfig(name=policy.name, options=options_in_force(policy)),
        heads=heads,
        constants=plan.constants,
        counters=plan.counters,
        groups=plan.groups,
        buffers=plan.buffers,
        schedule=plan.schedule,
        archive=plan.archive,
        text=text,
        programs=program_entries(special.programs, {}),
        passes=special.passes,
        memory=special.memory,
        files={},
    )


def cache_dtype_of(programs: list[Program]) -> CacheDtype:
    """What a step's keys and values are kept in."""
    steps = [each for each in programs if each.is_step]
    kinds = {key.dtype for each in steps for key in each.with_role(Role.KEY)} or {"float32"}
    (dtype,) = kinds
    assert dtype in CACHE_DTYPES, dtype
    return cast(CacheDtype, dtype)


def exact_of(manifest: Manifest, special: Specialized) -> Manifest:
    """The manifest of the programs as the reference runs them, before any target."""
    return msgspec.structs.replace(
        manifest,
        also={},
        programs=program_entries(special.programs, {}),
        buffers=special.exact.buffers,
        schedule=special.exact.schedule,
        archive=special.exact.archive,
    )
