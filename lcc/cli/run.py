"""`lcc run`."""

import contextlib
import json as json_
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcc.artifact.outputs import check_output
from lcc.cli.arguments import (
    AllowNative,
    Archive,
    ArchiveDtype,
    ArchiveLimit,
    Budget,
    Capacity,
    Device,
    Mapped,
    NoRecall,
    Quiet,
    Target,
    Threads,
    TrustedKey,
)
from lcc.cli.frame import progress_bar, read_text
from lcc.cli.load import open_session
from lcc.cli.options import archive_options
from lcc.errors import ArchiveError, LccError

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
    archive: Archive = None,
    archive_limit: ArchiveLimit = None,
    archive_dtype: ArchiveDtype = None,
    no_recall: NoRecall = False,
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
    mapped: Mapped = False,
    allow_native: AllowNative = False,
    trusted_key: TrustedKey = None,
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

    An archive is a file beside the memory: evictions write to it what they drop, a fixed number of
    bytes a token (`lcc inspect` says how many), and the question calls back what it asks for. A
    state that was saved with an archive goes on with that archive.

    \b
    Examples:
      lcc run m.lcc --file book.txt --prompt "Who is the narrator?"
      lcc run m.lcc --file book.txt --prompt "Who is the narrator?" --catalyst question
      cat *.log | lcc run m.lcc --file - --prompt "What failed first?" --json
      lcc run m.lcc --file book.txt --save book.lccstate
      lcc run m.lcc --load book.lccstate --prompt "And who is his sister?"
      lcc run m.lcc --file book.txt --archive book.lccarchive --prompt "Who is the narrator?" -v
      lcc run large.lcc --mapped --prompt "Who wrote Faust?"
    """
    from lcc.runtime.text.sampling import Sampling

    texts = [read_text(path) for path in file or []]
    _check(prompt, texts, catalyst=catalyst, save=save)
    archived = archive_options(
        archive, limit=archive_limit, dtype=archive_dtype, no_recall=no_recall
    )
    with contextlib.closing(
        open_session(
            artifact,
            capacity=capacity,
            budget=budget,
            threads=threads,
            target=target,
            device=device,
            mapped=mapped,
            allow_native=allow_native,
            trusted_keys=trusted_key,
            **archived,
        )
    ) as session:
        if load is not None:
            _load(session, load)
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
        Sampling.of(session.tokenizer.generation_config, **drawing)  # before anything is read
        said = _Said(session, prompt or "", begun=load is not None, raw=raw)
        if texts:
            said.read(texts, save, control_tokens=control_tokens, quiet=quiet)
        if save is not None:
            session.save(save)
        if prompt is None:
            return
        pieces = session.generate(
            said.question,
            max_new_tokens=max_new_tokens,
            stop=stop or (),
            prefix=not said.before,
            recall=not no_recall,
            **drawing,
        )
        _show(session, pieces, json=json, verbose=verbose)


def _check(
    prompt: str | None, texts: list[str], *, catalyst: str | None, save: Path | None
) -> None:
    """Refuse what asks for nothing, and a place where nothing can be saved, before it is read."""
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


def _load(session: "Session", state: Path) -> None:
    """Go on from a state, with the archive that it was saved with."""
    try:
        session.load(state)
    except ArchiveError as error:
        error.add_note("give the --archive that the state was saved with, or none")
        raise


class _Said:
    """What the user says: texts, then a question, in one turn of the model's chat template.

    before      what stands before the user's words; "" = there is no template
    question    the question, with what stands around it behind all that was read
    """

    def __init__(self, session: "Session", prompt: str, *, begun: bool, raw: bool) -> None:
        """`begun`: the session holds a text; `raw`: no template, and control tokens are obeyed."""
        from lcc.measure.evaluate.turn import user_turn

        self._session, self._begun = session, begun
        self.before, after = user_turn(session, raw=raw)
        words = prompt if raw else self._plain(prompt)
        self._alone, self._behind = self.before + words + after, f"\n\n{words}{after}"

    @property
    def question(self) -> str:
        """Behind a text, or alone."""
        return self._behind if self._begun else self._alone

    def read(
        self, texts: list[str], save: Path | None, *, control_tokens: bool, quiet: bool
    ) -> None:
        """Read texts; where that is stopped, save what was read."""
        head, text = "\n\n" if self._begun else self.before, "\n\n".join(texts)
        self._begun = True
        text = head + (text if control_tokens else self._plain(text))
        try:
            _read(self._session, text, prefix=not head, quiet=quiet)
        except KeyboardInterrupt:
            _save_part(self._session, save)
            raise

    def _plain(self, text: str) -> str:
        """The text with control tokens as plain text, where the tokenizer can tell."""
        tokenizer = self._session.tokenizer
        return tokenizer.literals.mark(text) if tokenizer.knows_text else text


def _show(session: "Session", pieces: Iterator[str], *, json: bool, verbose: bool) -> None:
    """Print an answer as it comes, or as JSON with the statistics when it is whole."""
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
