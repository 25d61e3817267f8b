"""`lcc inspect`."""

from itertools import groupby
from math import prod
from pathlib import Path
from typing import Annotated

import typer

from lcc.artifact.folder import verify_files
from lcc.artifact.manifest import (
    LayerEntry,
    Manifest,
    ProgramEntry,
    cache_dtype,
    for_target,
    manifest_bytes,
    read_manifest,
    targets_of,
)
from lcc.artifact.schedule import TensorSpec
from lcc.cli.frame import bytes_text, indent, table
from lcc.cli.schedule import buffers_text, counters_text, groups_text, schedule_text, short
from lcc.errors import printable
from lcc.ir.plan import ranges
from lcc.ir.roles import Role

NO_CACHE = "none: no layer attends, and what was read stays in states"


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Also compare every file with its sha256.")
    ] = False,
) -> None:
    """Show what an artifact holds: programs and shapes, layers, memory, how it is run.

    \b
    Examples:
      lcc inspect smollm2.lcc
      lcc inspect smollm2.lcc --check
      lcc inspect smollm2.lcc --json | jq .cache
    """
    manifest = read_manifest(artifact)
    if check:
        verify_files(artifact, manifest)
    typer.echo(manifest_bytes(manifest).decode() if json else describe(manifest), nl=not json)
    if check:
        typer.echo(f"{len(manifest.files)} files are as they were written", err=True)


def describe(manifest: Manifest) -> str:
    """Write a manifest as text for people."""
    total = sum(entry.bytes for entry in manifest.memory)
    memory = [(entry.name, bytes_text(entry.bytes)) for entry in manifest.memory]
    files = [(name, bytes_text(entry.bytes)) for name, entry in sorted(manifest.files.items())]
    parts = {
        "Memory": table([*memory, ("total", bytes_text(total))], right=(1,)) + _mapped(manifest),
        "Layers": table(_layers(manifest.model.layers)),
        "Layer groups": groups_text(manifest.groups),
        "Constants": counters_text(manifest.constants),
        "Counters, as they begin": counters_text(manifest.counters),
        "Buffers": buffers_text(manifest.buffers),
        "Schedule": schedule_text(manifest.schedule),
        **{title: "\n".join(_programs(programs)) for title, programs in _by_target(manifest)},
        "Passes": table([(p.name, f"{p.sites} sites") for p in manifest.passes]),
        "Files": table(files, right=(1,)),
    }
    shown = [f"{title}\n{indent(text)}" for title, text in parts.items() if text]
    text = "\n\n".join([table(_facts(manifest)), *shown])
    return "\n".join(printable(line) for line in text.split("\n"))


def _mapped(manifest: Manifest) -> str:
    """Which weights are resident, and which are mapped: those the system may drop."""
    size = sum(each.bytes for name, each in manifest.files.items() if name.startswith("weights"))
    if manifest.target.startswith("tvm:") and manifest.target != "tvm:cuda":
        return f"\nweights: mapped from their file, {bytes_text(size)}"
    if manifest.target in ("onnxruntime:cpu", "onnxruntime:mobile"):
        held = "resident, packed for the kernels"
        return f"\nweights: {held}; with --mapped in their file, {bytes_text(size)}"
    return ""


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    model = manifest.model
    trained = f", trained on {model.trained_window} tokens" if model.trained_window else ""
    facts = [
        ("model", f"{model.name} ({model.architecture}{trained})"),
        ("target", ", ".join(map(_target, _each_target(manifest)))),
        ("made by", manifest.made_by),
        *(_cache(manifest) if model.layers else [("cache", NO_CACHE)]),
        *_states(manifest),
        ("tokenizer", _tokenizer(manifest)),
    ]
    if manifest.precision != "fp32":
        facts.insert(2, ("precision", f"weights in {manifest.precision}"))
    if manifest.heads is not None:
        heads = manifest.heads
        facts.append(("retaining heads", f"{heads.width} wide, {heads.activation}"))
        facts.append(("", f"trained on {heads.trained_on}"))
    return facts


def _cache(manifest: Manifest) -> list[tuple[str, str]]:
    cache = manifest.cache
    return [
        ("policy", manifest.policy.name),
        *(("", f"{name} = {value}") for name, value in sorted(manifest.policy.options.items())),
        ("positions", cache.positions),
        ("cache", f"capacity {cache.capacity}, budget {cache.budget} entries per KV head"),
        ("", f"keys and values in {cache_dtype(manifest)}"),
        ("", f"chunk {cache.chunk_size}, catalyst {cache.catalyst_size} tokens at most"),
        ("", f"first {cache.sink_size} and newest {cache.recent_size} entries are kept"),
        *_archive(manifest),
    ]


def _states(manifest: Manifest) -> list[tuple[str, str]]:
    """What recurrent layers carry, of which no cycle takes anything."""
    marks = {mark for _, mark in manifest.schedule.marks}
    specs = [each for each in manifest.buffers if each.role == Role.STATE]
    own = [each for each in specs if each.name not in marks]
    if not own:
        return []
    held, copies = (sum(4 * prod(map(int, each.shape)) for each in some) for some in (own, specs))
    copies += held * (1 + manifest.constants["snapshots"])
    states = f"{len(own)} of recurrent layers, {bytes_text(held)}; with copies"
    return [("states", f"{states} to go back to, {bytes_text(copies)}")]


def _tokenizer(manifest: Manifest) -> str:
    if "tokenizer.json" not in manifest.files:
        return "none: give ids"
    if "text.bin" in manifest.files:
        size = bytes_text(manifest.files["text.bin"].bytes)
        return f"also as tables, {size} mapped in its place where liblcc is installed"
    return f"no tables: {manifest.text.no_tables or 'compiled without them'}"


def _archive(manifest: Manifest) -> list[tuple[str, str]]:
    """What a token takes on disk, apart from the memory, and which layers choose in a recall."""
    if not manifest.archive:
        evicts = "what is evicted is gone" if manifest.schedule.cycle else "nothing is evicted"
        return [("archive", f"none: {evicts}")]
    from lcc.runtime.archive import Layout
    from lcc.runtime.archive.rows import DTYPES, ROWS, columns_of

    layouts = {dtype: Layout(tuple(columns_of(manifest, dtype)), ROWS) for dtype in DTYPES}
    sizes = [f"{each.bytes_per_row:,} bytes in {dtype}" for dtype, each in layouts.items()]
    runs = [run for block in manifest.schedule.recall for run in block.do if run.load]
    voting = ", ".join(map(str, sorted({layer for run in runs for layer in run.each or ()})))
    return [
        ("archive", f"a token on disk: {', '.join(sizes)}; {len(manifest.archive)} columns"),
        ("", f"recall by layers {voting}"),
    ]


def _layers(layers: list[LayerEntry]) -> list[tuple[object, ...]]:
    """Put runs of equal layers into one row each."""
    rows: list[tuple[object, ...]] = []
    for layer, run in groupby(enumerate(layers), key=lambda pair: pair[1]):
        kind = f"window {layer.window_size}" if layer.window_size else str(layer.kind)
        heads = f"{layer.query_heads} query heads, {layer.kv_heads} KV heads of {layer.head_size}"
        rows.append((ranges({index for index, _ in run}), kind, heads))
    return rows


def _by_target(manifest: Manifest) -> list[tuple[str, dict[str, ProgramEntry]]]:
    """The programs for each target, with a title."""
    if not manifest.also:
        return [("Programs", manifest.programs)]
    return [(f"Programs for {each.target}", each.programs) for each in _each_target(manifest)]


def _each_target(manifest: Manifest) -> list[Manifest]:
    return [for_target(manifest, name) for name in targets_of(manifest)]


def _target(manifest: Manifest) -> str:
    facts = [f"needs {manifest.cpu}"] if manifest.cpu else []
    facts += [manifest.note] if manifest.note else []
    return manifest.target + (f" ({'; '.join(facts)})" if facts else "")


def _programs(programs: dict[str, ProgramEntry]) -> list[str]:
    lines = []
    for name, program in sorted(programs.items()):
        lines.append(f"{name}  ({program.file})")
        for arrow, tensors in (("in ", program.inputs), ("out", program.outputs)):
            if tensors:
                lines.append(indent(table([(arrow, *row) for row in _tensors(tensors)])))
    return lines


def _tensors(tensors: list[TensorSpec]) -> list[tuple[str, str]]:
    """Put tensors that differ only in the number in their name into one row."""
    rows = [(tensor.name, f"{tensor.dtype} {_shape(tensor)}") for tensor in tensors]
    return [(name, *rest) for name, *rest in short(rows)]  # type: ignore[misc]


def _shape(tensor: TensorSpec) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
