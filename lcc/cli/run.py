"""`lcc run`."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcc.artifact.outputs import check_output
from lcc.cli.arguments import Budget, Capacity, Device, Quiet, Target, Threads
from lcc.cli.frame import progress_bar, read_text
from lcc.cli.load import open_session
from lcc.errors import LccError

if TYPE_CHECKING:
    from lcc.runtime.session import Session


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The question.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="UTF-8 text to read first; - = stdin.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("-n", "--max-new-tokens", min=1, help="Length of the answer.")
    ] = 256,
    catalyst: Annotated[
        str | None, typer.Option(help="What evictions look for: a text, or `question`.")
    ] = None,
    load: Annotated[Path | None, typer.Option(help="Go on from a state made by --save.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the state, after the text, before the question.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 = the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw among so many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among this much probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Least probability, of the best's.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1 = none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text.")] = None,
    capacity: Capacity = None,
    budget: Budget = None,
    threads: Threads = None,
    target: Target = None,
    device: Device = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="No chat template; the model goes on from the prompt.")
    ] = False,
    control_tokens: Annotated[
        bool,
        typer.Option("--control-tokens", help="Obey control tokens, <|im_end|>, in --file."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Times on stderr.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Answer and statistics as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Read a text of any length, then answer a question about it.

    What an eviction keeps depends on the catalyst. The default one knows nothing of the question:
    the state can be saved and asked anything. `--catalyst question` keeps what this question needs.
    Control tokens in a file or a question are read as plain text, so that a document cannot end the
    user's turn; --control-tokens obeys those of files, --raw those of the question.
    With --save, Ctrl-C while the text is read saves what was read so far.

    \b
    Examples:
      lcc run m.lcc --file book.txt --prompt "Who is the narrator?"
      lcc run m.lcc --file book.txt --prompt "Who is the narrator?" --catalyst question
      cat *.log | lcc run m.lcc --file - --prompt "What failed first?" --json
      lcc run m.lcc --file book.txt --save book.lccstate
      lcc run m.lcc --load book.lccstate --prompt "And who is his sister?"
    """
    from lcc.runtime.text.sampling import Sampling

    texts = [read_text(path) for path in file or []]
    if prompt is not None and not prompt.strip():
        raise LccError("the prompt is empty; give a question with --prompt")
    if prompt is None and save is None:
        raise LccError("nothing to answer; give a question with --prompt, or --save the state")
    if prompt is None and not texts:
        raise LccError("nothing to read and nothing to answer; give --file and --prompt")
    if catalyst == "question" and prompt is None:
        raise LccError("--catalyst question needs a --prompt")

    if save is not None:
        check_output(save)

    session = open_session(
        artifact,
        capacity=capacity,
        budget=budget,
        threads=threads,
        target=target,
        device=device,
    )
    if load is not None:
        session.load(load)
    if catalyst is not None:  # in place of the state's own
        session.catalyst = prompt if catalyst == "question" and prompt else catalyst
    drawing: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    Sampling.of(session.tokenizer.generation_config, **drawing)  # a mistake is told before reading

    from lcc.measure.evaluate.turn import user_turn

    before, after = user_turn(session, raw=raw)
    words = prompt or ""
    if not raw and session.tokenizer.knows_text:
        words = session.tokenizer.literals.mark(words)
    question = f"\n\n{words}{after}" if texts or load else before + words + after
    if texts:
        head = "\n\n" if load else before
        text = "\n\n".join(texts)
        if not control_tokens and session.tokenizer.knows_text:
            text = session.tokenizer.literals.mark(text)
        try:
            _read(session, head + text, prefix=not head, quiet=quiet)
        except KeyboardInterrupt:
            _save_part(session, save)
            raise
    if save is not None:
        session.save(save)
    if prompt is None:
        return
    pieces = session.generate(
        question, max_new_tokens=max_new_tokens, stop=stop or (), prefix=not before, **drawing
    )
    if json:
        answer = "".join(pieces)
        page = {"answer": answer, "stats": session.stats().to_dict()}
        typer.echo(json_.dumps(page, indent=2, ensure_ascii=False))
    else:
        for piece in pieces:
            typer.echo(piece, nl=False)
        typer.echo()
    if verbose:
        typer.echo(str(session.stats()), err=True)


def _read(session: "Session", text: str, *, prefix: bool, quiet: bool) -> None:
    with progress_bar(quiet=quiet) as report:
        session.feed(
            text,
            prefix=prefix,
            last=True,
            progress=lambda at: report(f"{at.tokens:,} tokens, {at.cycles} cycles", at.fraction),
        )


def _save_part(session: "Session", save: Path | None) -> None:
    """Keep what was read of a text when it was stopped."""
    if save is not None and session.tokens:
        session.save(save)
        typer.echo(f"lcc: {session.tokens:,} tokens were read and are saved in {save}", err=True)
