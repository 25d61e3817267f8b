"""`lcc compile`."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lcc.cli.arguments import Quiet
from lcc.cli.frame import bytes_text, progress_bar, quiet_torch, table
from lcc.cli.options import merge, parse_bytes, parse_options
from lcc.errors import ConfigError


def command(
    model: Annotated[str, typer.Argument(help="Folder, hub name, .gguf file, or smollm2.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The artifact, a folder.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="See: lcc targets; or: fastest, on this machine. Several: say it again."),
    ] = None,
    cpu: Annotated[
        str | None,
        typer.Option(
            help="Of tvm:*: cooperlake, x86-64-v4, -v3, x86-64 [this one's]; of Arm armv8.2-a, "
            "generic [generic]; sm_80 .. sm_90."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the weights: fp32, int8 (fast), int4 (small), given (the file's bits) [fp32]."
        ),
    ] = None,
    kv_precision: Annotated[
        str | None, typer.Option(help="Of keys and values: fp32, or fp16 (half the cache) [fp32].")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="The most it may take when it runs, such as 512MB.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(help="Slots of the cache; never more.")] = None,
    budget: Annotated[
        int | None, typer.Option(help="Entries an eviction keeps [half of the capacity].")
    ] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Tokens read in one step.")] = None,
    catalyst_size: Annotated[int | None, typer.Option(help="Longest catalyst, in tokens.")] = None,
    sink_size: Annotated[int | None, typer.Option(help="First tokens, never evicted.")] = None,
    recent_size: Annotated[int | None, typer.Option(help="Newest tokens, kept once.")] = None,
    positions: Annotated[
        str | None, typer.Option(help="contiguous (any length) or absolute (the trained one).")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="What each layer sees: longgen(...), ranges, or a .yaml file."),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="What an eviction keeps.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Of the policy, NAME=VALUE; may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    catalyst: Annotated[
        str | None, typer.Option(help="Default catalyst: the same as --option catalyst=TEXT.")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="Retaining heads, for locret or consensus: lcc train heads.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file; flags win over what it says.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compile a model into an artifact that reads text of any length.

    The memory table is computed first. With --memory, the largest budget that fits is taken; where
    none fits, or a larger one was asked for, the answer is an error that names it.

    \b
    Examples:
      lcc compile smollm2 -o smollm2.lcc
      lcc compile ./Qwen3-0.6B -o qwen.lcc --memory 4GB
      lcc compile org/name -o small.lcc --capacity 1024 --budget 512 --policy snapkv
      lcc compile smollm2 -o m.lcc --policy infinipot --option alpha=0.3 --option nll_span=21
      lcc compile smollm2 -o heads.lcc --policy locret --heads heads.safetensors
      lcc compile smollm2 -o hybrid.lcc --plan "longgen(sink=4, window=512)"
      lcc compile smollm2 -o native.lcc --target tvm:cpu
      lcc compile smollm2 -o fast.lcc --target fastest --precision int8
      lcc compile smollm2 -o small.lcc --precision int4
      lcc compile model.gguf -o model.lcc --config long.yaml

    \b
    The file of --config has the fields of the manifest's parts:
      target: onnxruntime:cpu
      memory_bytes: 2GB
      cache: {capacity: 4096, budget: 2048, chunk_size: 256}
      policy: {name: consensus, options: {nll_weight: 0.75}}
      plan: "0-9: sink_window(sink=4, window=512); 10-29: full"
    """
    settings = merge(
        config,
        {
            "target": target or None,
            "precision": precision,
            "kv_precision": kv_precision,
            "memory_bytes": None if memory is None else parse_bytes(memory),
            "cache": {
                "capacity": capacity,
                "budget": budget,
                "chunk_size": chunk_size,
                "catalyst_size": catalyst_size,
                "sink_size": sink_size,
                "recent_size": recent_size,
                "positions": positions,
            },
            "policy": {
                "name": policy,
                "options": parse_options(option or [], catalyst=catalyst),
            },
            "plan": plan,
            "heads": heads,
            "cpu": cpu,
        },
    )
    from lcc.artifact.manifest import manifest_bytes, targets_of
    from lcc.cli.inspect import NO_CACHE
    from lcc.env import needs_extra

    with needs_extra("compile"):
        from lcc.compile import compile_model
        from lcc.targets.fastest import DEFAULT, fastest, resolved

    settings, chosen = resolved(settings)
    if chosen is not None:
        typer.echo(chosen.why, err=True)
    with quiet_torch(), progress_bar(quiet=quiet) as report:
        try:
            manifest = compile_model(model, output, settings, progress=report)
        except ConfigError as error:
            refused = f"target {settings.target} refuses"
            if chosen is None or chosen.name == DEFAULT or refused not in str(error):
                raise
            typer.echo(f"{error}; so for {DEFAULT}", err=True)
            also = tuple(name for name in settings.also if name != DEFAULT)
            settings = msgspec.structs.replace(settings, target=DEFAULT, also=also)
            manifest = compile_model(model, output, settings, progress=report)
    if json:
        typer.echo(manifest_bytes(manifest).decode(), nl=False)
        return
    typer.echo(f"{output}: {manifest.model.name} for {', '.join(targets_of(manifest))}")
    if not manifest.model.layers:
        typer.echo(f"  cache: {NO_CACHE}")
    rows = [(f"  {entry.name}", bytes_text(entry.bytes)) for entry in manifest.memory]
    rows.append(("  total", bytes_text(sum(entry.bytes for entry in manifest.memory))))
    typer.echo(table(rows, right=(1,)))
    if chosen is None and targets_of(manifest) == [DEFAULT]:
        best = fastest(settings.precision)
        if best.name != DEFAULT:
            typer.echo(f"  faster: --target fastest ({best.why})")
