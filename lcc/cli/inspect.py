"""`lcc inspect`."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from lcc.artifact.folder import verify_files
from lcc.artifact.manifest import (
    LayerEntry,
    Manifest,
    ProgramEntry,
    TensorEntry,
    cache_dtype,
    for_target,
    manifest_bytes,
    read_manifest,
    targets_of,
)
from lcc.cli.frame import bytes_text, table


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Also compare every file with its sha256.")
    ] = False,
) -> None:
    """Show what an artifact holds: programs and shapes, layers, memory, what each pass rewrote.

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
    model, cache = manifest.model, manifest.cache
    trained = f", trained on {model.trained_window} tokens" if model.trained_window else ""
    facts = [
        ("model", f"{model.name} ({model.architecture}{trained})"),
        ("target", ", ".join(map(_target, _each_target(manifest)))),
        ("made by", manifest.made_by),
        ("policy", _policy(manifest)),
        ("positions", cache.positions),
        ("cache", f"capacity {cache.capacity}, budget {cache.budget} entries per KV head"),
        ("", f"keys and values in {_dtypes(manifest)}"),
        ("", f"chunk {cache.chunk_size}, catalyst {cache.catalyst_size} tokens at most"),
        ("", f"first {cache.sink_size} and newest {cache.recent_size} entries are kept"),
    ]
    if manifest.precision != "fp32":
        facts.insert(2, ("precision", f"weights in {manifest.precision}"))
    if manifest.policy.tail_size is not None:
        facts.append(
            ("", f"of a text's last {manifest.policy.tail_size} tokens, in its last cycle")
        )
    if manifest.heads is not None:
        heads = manifest.heads
        facts.append(("retaining heads", f"{heads.width} wide, {heads.activation}"))
        facts.append(("", f"trained on {heads.trained_on}"))
    total = sum(entry.bytes for entry in manifest.memory)
    memory = [(entry.name, bytes_text(entry.bytes)) for entry in manifest.memory]
    files = [(name, bytes_text(entry.bytes)) for name, entry in sorted(manifest.files.items())]
    parts = [
        table(facts),
        "Memory\n" + _indent(table([*memory, ("total", bytes_text(total))], right=(1,))),
        "Layers\n" + _indent(table(_layers(model.layers))),
        *(f"{title}\n" + _indent("\n".join(_programs(p))) for title, p in _by_target(manifest)),
        "Passes\n" + _indent(table([(p.name, f"{p.sites} sites") for p in manifest.passes])),
        "Files\n" + _indent(table(files, right=(1,))),
    ]
    return "\n\n".join(parts)


def _policy(manifest: Manifest) -> str:
    reads = [*manifest.scalars]
    queries = f", queries: {manifest.queries}" if manifest.queries else ""
    return f"{manifest.policy.name} (reads {', '.join(reads) or 'keys and slots'}{queries})"


def _layers(layers: list[LayerEntry]) -> list[tuple[object, ...]]:
    """Put runs of equal layers into one row each."""
    rows: list[tuple[object, ...]] = []
    for layer, run in groupby(enumerate(layers), key=lambda pair: pair[1]):
        numbers = [index for index, _ in run]
        name = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
        kind = f"window {layer.window_size}" if layer.window_size else str(layer.kind)
        heads = f"{layer.query_heads} query heads, {layer.kv_heads} KV heads of {layer.head_size}"
        programs = ", ".join(each for each in (layer.score, layer.evict) if each)
        rows.append((name, kind, heads, programs or "never evicted"))
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


def _dtypes(manifest: Manifest) -> str:
    """What the cache is kept in; each of them, where targets differ."""
    return " or ".join(sorted({cache_dtype(m.programs) for m in _each_target(manifest)}))


def _programs(programs: dict[str, ProgramEntry]) -> list[str]:
    lines = []
    for name, program in sorted(programs.items()):
        lines.append(f"{name}  ({program.file})")
        for arrow, tensors in (("in ", program.inputs), ("out", program.outputs)):
            rows = [(arrow, *row) for row in _tensors(tensors)]
            lines.append(_indent(table(rows)))
    return lines


def _tensors(tensors: list[TensorEntry]) -> list[tuple[str, str]]:
    """Put tensors that differ only in the number in their name into one row."""
    shapes: dict[tuple[str, str], list[str]] = {}
    for tensor in tensors:
        pattern = "".join("*" if part.isdigit() else part for part in _split(tensor.name))
        shape = f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
        shapes.setdefault((pattern, shape), []).append(tensor.name)
    rows = []
    for (_, shape), names in shapes.items():
        shown = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"
        rows.append((shown, shape))
    return rows


def _split(name: str) -> list[str]:
    """Split a name into runs of digits and runs of everything else."""
    return ["".join(run) for _, run in groupby(name, key=str.isdigit)]


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
