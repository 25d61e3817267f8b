"""`lcc chat`."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcc.cli.arguments import (
    AllowNative,
    Archive,
    ArchiveDtype,
    ArchiveLimit,
    Device,
    Mapped,
    NoRecall,
    Target,
    Threads,
    TrustedKey,
)
from lcc.cli.frame import read_text
from lcc.cli.load import open_session
from lcc.cli.options import archive_options
from lcc.errors import ArchiveError, LccError

if TYPE_CHECKING:
    from lcc.runtime.session import Session

HELP = """\
/file PATH    put a text before the next message
/again        another answer to the last message
/stats        what was read and written, and the memory held
/clear        forget everything
/exit         leave; Ctrl-D does so too, Ctrl-C stops an answer"""


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("-n", "--max-new-tokens", min=1, help="Longest answer.")
    ] = 512,
    temperature: Annotated[float | None, typer.Option(help="0 = the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answers.")] = None,
    control_tokens: Annotated[
        bool,
        typer.Option("--control-tokens", help="Obey control tokens, <|im_end|>, in messages."),
    ] = False,
    archive: Archive = None,
    archive_limit: ArchiveLimit = None,
    archive_dtype: ArchiveDtype = None,
    no_recall: NoRecall = False,
    threads: Threads = None,
    target: Target = None,
    device: Device = None,
    mapped: Mapped = False,
    allow_native: AllowNative = False,
    trusted_key: TrustedKey = None,
) -> None:
    """Talk with a model; the conversation never outgrows its memory.

    With --archive, what evictions drop goes to a file, and each message calls back from there what
    it asks for. /stats says how much came back. /clear empties the archive.

    \b
    Examples:
      lcc chat m.lcc
      lcc chat m.lcc --system "You answer in French."
      lcc chat m.lcc --archive talk.lccarchive --archive-limit 2GB
      printf 'Hello\\n/stats\\n' | lcc chat m.lcc
    """
    archived = archive_options(
        archive, limit=archive_limit, dtype=archive_dtype, no_recall=no_recall
    )
    options = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "plain": not control_tokens,
        "recall": not no_recall,
    }
    with contextlib.closing(
        open_session(
            artifact,
            threads=threads,
            target=target,
            device=device,
            mapped=mapped,
            allow_native=allow_native,
            trusted_keys=trusted_key,
            **archived,
        )
    ) as session:
        _converse(Talk(session, system, options))


def _converse(talk: "Talk") -> None:
    """Obey and answer line by line, until the end of the input."""
    typer.echo("/help lists the commands, /exit leaves", err=True)
    while (line := _ask()) is not None:
        try:
            if line.startswith("/"):
                if not talk.obey(line):
                    return
            elif line:
                talk.answer(line)
        except (LccError, OSError) as error:  # a mistake ends the turn, not the conversation
            if isinstance(error, ArchiveError) and not talk.session.tokens:
                raise  # the archive of another text: the next message would meet it, too
            typer.echo(f"lcc: error: {error}", err=True)


def _ask() -> str | None:
    """Read one line; None at the end of the input."""
    typer.echo("> ", nl=False, err=True)
    try:
        return input().strip()
    except EOFError:
        typer.echo(err=True)
        return None
    except UnicodeDecodeError as error:
        raise LccError(f"the input is not UTF-8 text: {error.reason}") from None


class Talk:
    """The conversation: the messages so far, and a session that has read them."""

    def __init__(self, session: "Session", system: str | None, options: dict) -> None:
        """Begin with the system prompt, if there is one; `options` are those of `Session.chat`."""
        self.session, self.system, self.options = session, system, options
        self.clear()

    def clear(self) -> None:
        """Forget everything but the system prompt."""
        self.session.reset()
        self.messages = [{"role": "system", "content": self.system}] if self.system else []
        self.text = ""

    def answer(self, text: str) -> None:
        """Answer one message; Ctrl-C ends the answer, and the conversation goes on."""
        content = f"{self.text}{text}"
        self._say([*self.messages, {"role": "user", "content": content}])
        self.text = ""

    def again(self) -> None:
        """Answer the last message once more, as if it had not been answered."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise LccError("/again: nothing was answered yet")
        self._say(self.messages[:-1])

    def _say(self, messages: list[dict[str, str]]) -> None:
        pieces = []
        try:
            for piece in self.session.chat(messages, **self.options):
                typer.echo(piece, nl=False)
                pieces.append(piece)
        except KeyboardInterrupt:
            pass
        typer.echo()
        self.messages = [*messages, {"role": "assistant", "content": "".join(pieces)}]

    def obey(self, line: str) -> bool:
        """Carry out a line that begins with a slash; returns False to leave."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name in ("/exit", "/quit", "/bye"):
            return False
        if name == "/file" and not argument:
            typer.echo("lcc: error: /file wants a path", err=True)
        elif name == "/again":
            self.again()
        elif name == "/help":
            typer.echo(HELP, err=True)
        elif name == "/stats":
            typer.echo(str(self.session.stats()), err=True)
        elif name == "/clear":
            self.clear()
        elif name == "/file":
            self.text += read_text(Path(argument)) + "\n\n"
        else:
            typer.echo(f"lcc: error: no command {name}; /help lists them", err=True)
        return True
