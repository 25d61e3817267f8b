"""`lcc demo`."""

from pathlib import Path
from typing import Annotated

import typer

from lcc.cli.arguments import Quiet
from lcc.cli.frame import bytes_text, progress_bar, quiet_torch


def command(
    tokens: Annotated[int, typer.Option(min=64, help="Length of the text.")] = 32768,
    depth: Annotated[float, typer.Option(help="Where the key is, in per cent.")] = 50.0,
    haystack: Annotated[
        str, typer.Option(help="noise, python (its own documentation), or a file or folder.")
    ] = "noise",
    catalyst: Annotated[
        str | None, typer.Option(help="What evictions look for: a text, or `question`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same key.")] = 1,
    model: Annotated[str, typer.Option(help="As in lcc compile.")] = "smollm2",
    config: Annotated[Path | None, typer.Option(help="As in lcc compile.")] = None,
    quiet: Quiet = False,
) -> None:
    """Compile a small model and find a key in a text four times as long as it was trained on.

    The artifact is kept in ~/.cache/lcc (or LCC_CACHE_DIR). The text is read by a new process that
    loads no PyTorch. Exit code 1 if the key is not found.

    \b
    Examples:
      lcc demo
      lcc demo --tokens 131072 --depth 25
      lcc demo --haystack python --catalyst question
      lcc demo --haystack book.txt --catalyst question
    """
    from lcc.cli.options import merge
    from lcc.demo import demo
    from lcc.targets.fastest import resolved

    settings, _ = resolved(merge(config, {}))
    with quiet_torch(), progress_bar(quiet=quiet) as report:
        artifact, manifest = demo.compile_demo(model, settings, report)
    typer.echo(f"artifact  {artifact}")
    sample = demo.hide(artifact, haystack, tokens, depth, seed)
    typer.echo(f"text      {sample.tokens:,} tokens, the key {sample.answers[0]} at {depth:g} %")
    looks_for = sample.question if catalyst == "question" else catalyst
    with progress_bar(quiet=quiet) as report:
        result = demo.ask(artifact, sample, catalyst=looks_for, progress=report)
    stats = result.stats
    typer.echo(f"question  {sample.question}")
    typer.echo(f"answer    {sample.answer_prefix}{result.answer}")
    typer.echo(f"          {'found' if result.found else 'NOT found'}\n")
    typer.echo(demo.picture(result.memory) + "\n")
    full = demo.full_cache_bytes(manifest, sample.tokens)
    typer.echo(
        f"cache     {bytes_text(stats['cache_bytes'])}, fixed; every token would take "
        f"{bytes_text(full)}\n"
        f"cycles    {stats['cycles']}, {stats['cycle_seconds']:.1f} s of "
        f"{stats['prefill_seconds']:.1f} s\n"
        f"speed     {stats['prefill_tokens_per_second']:.0f} tokens/s read\n"
        f"process   loaded of torch, transformers, onnx: {', '.join(result.modules) or 'none'}"
    )
    if not result.found:
        raise typer.Exit(1)
