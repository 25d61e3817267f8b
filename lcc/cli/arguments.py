"""Options that several commands have, written once."""

from pathlib import Path
from typing import Annotated

import typer

Capacity = Annotated[int | None, typer.Option(help="Less than was compiled.")]
Budget = Annotated[int | None, typer.Option(help="Less than was compiled.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")]
Target = Annotated[
    str | None, typer.Option(help="Of those it was compiled for [the first that can run].")
]
Device = Annotated[str | None, typer.Option(help="cpu = there, whatever it was compiled for.")]
Mapped = Annotated[
    bool, typer.Option("--mapped", help="Leave the weights in their file: less memory, slower.")
]
AllowNative = Annotated[
    bool, typer.Option("--allow-native", help="Let it run machine code of its own: tvm:*.")
]
TrustedKey = Annotated[
    list[str] | None,
    typer.Option("--trusted-key", help="Public key that must have signed it, or its file."),
]
Jobs = Annotated[int, typer.Option(min=1, help="Processes, each with its own session.")]
ThreadsOfAll = Annotated[int | None, typer.Option(min=1, help="Of all jobs together.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Haystack = Annotated[Path | None, typer.Option(help="Text file or folder of *.txt.")]
ChatTemplate = Annotated[
    bool, typer.Option("--chat/--no-chat", help="Use the model's chat template.")
]
FirstSeed = Annotated[int, typer.Option(help="Of the first sample; the next has the next.")]
Archive = Annotated[
    Path | None, typer.Option(help="File for what evictions drop; a question calls it back.")
]
ArchiveLimit = Annotated[
    str | None, typer.Option(help="Most bytes of --archive, such as 2GB; then the oldest go.")
]
ArchiveDtype = Annotated[
    str | None,
    typer.Option(help="Of keys and values in --archive: float16 [default], float32, int8."),
]
NoRecall = Annotated[
    bool, typer.Option("--no-recall", help="Write to --archive, and call nothing back.")
]
