"""What every command shares: one-line errors, exit codes, the progress bar, reading text."""

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import typer
from typer.core import TyperGroup

import lcc
from lcc import env
from lcc.errors import LccError, first_line

Progress = Callable[[str, float], None]


class CommandGroup(TyperGroup):
    """Runs a command and turns a user's mistake into one line and exit code 2."""

    def invoke(self, ctx):  # noqa: D102  (typer's own signature)
        try:
            _prepare()
            return super().invoke(ctx)
        except LccError as error:
            fail(" ".join([str(error), *(f"({note})" for note in getattr(error, "__notes__", []))]))
        except BrokenPipeError:  # `lcc inspect x | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}")
        except KeyboardInterrupt:
            typer.echo("lcc: stopped", err=True)
            raise typer.Exit(130) from None
        except MemoryError:
            fail("not enough memory; wanted a smaller model, or a machine with more of it")
        except Exception as error:
            _pass_on(error)


def _pass_on(error: Exception) -> NoReturn:
    """Usage errors and exit codes to typer; a bug as one line, with a traceback where asked for."""
    if type(error).__module__.partition(".")[0] in ("typer", "click"):
        raise error
    if env.log_level() == "debug":
        raise error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    typer.echo(
        f"lcc: bug: {type(error).__name__}: {first_line(error)} ({Path(frame.filename).name}, line "
        f"{frame.lineno}); please report it with the traceback that LCC_LOG=debug shows",
        err=True,
    )
    raise typer.Exit(3) from None


def fail(message: str) -> NoReturn:
    """Print one line to stderr and leave with exit code 2."""
    typer.echo(f"lcc: error: {' '.join(message.split())}", err=True)
    raise typer.Exit(2)


def _prepare() -> None:
    """Set up the log, and say which LCC_* variables mean nothing."""
    logging.basicConfig(
        level=env.log_level().upper(), stream=sys.stderr, format="%(name)s: %(message)s"
    )
    for name in env.mistyped_variables():
        typer.echo(f"lcc: {name} is set, but no variable of lcc has this name", err=True)


def show_version(asked: bool) -> None:
    """Print the version and leave, if that was asked."""
    if asked:
        typer.echo(f"lcc {lcc.__version__}")
        raise typer.Exit(0)


@contextlib.contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Show a bar on stderr, if it is a terminal; yields `report(step, share done)`."""
    from tqdm import tqdm

    layout = "{desc:<46} {bar} {percentage:3.0f}% {elapsed}"
    with tqdm(total=1.0, disable=quiet or None, bar_format=layout, leave=False) as bar:

        def report(step: str, done: float) -> None:
            bar.set_description_str(step, refresh=False)
            bar.update(done - bar.n)

        yield report


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Hide what torch's exporter tells its own developers, unless the log is asked for."""
    if env.log_level() in ("debug", "info"):
        yield
        return
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    env.quiet_torch_import()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, or standard input where the path is `-`."""
    name = "standard input" if str(path) == "-" else str(path)
    data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LccError(
            f"{name}: not UTF-8 text, byte {data[error.start]:#04x} at offset {error.start}; "
            "convert it, for example: iconv -f latin1 -t utf-8 OLD > NEW"
        ) from None
    if not text.strip():
        raise LccError(f"{name}: no text in it")
    return text


def bytes_text(count: int) -> str:
    """Write a number of bytes for people: 1.5 MB is 1,500,000 bytes."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def indent(text: str) -> str:
    """The same lines, two spaces further in."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def table(rows: Sequence[tuple[object, ...]], *, right: tuple[int, ...] = ()) -> str:
    """Lay out rows as text, "" for none; the columns in `right` are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
