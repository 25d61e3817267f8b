"""Every error lcc raises on purpose. The type says whose fault it is; one line says what to do."""


class LccError(Exception):
    """Base of all errors that are not bugs of lcc.

    Its text is one line that moves no cursor, whatever names a file has brought into it.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(LccError, ValueError):
    """An option, or a combination of options, that cannot work."""


class MissingPackageError(LccError):
    """A package that is not always installed is wanted; names the command that brings it."""


class ModelError(LccError):
    """The model's folder or file is missing, is not a model, or lacks a part."""


class CaptureError(LccError):
    """`torch.export` could not capture the model."""


class PassError(LccError):
    """A graph pass refuses the program, or its result breaks what the pass promises."""


class TargetError(LccError):
    """A target cannot build a program, or is not available on this machine."""


class ArtifactError(LccError):
    """An artifact or a state file is missing, damaged, newer than this lcc, or not ours."""


class ArchiveError(LccError):
    """An archive is damaged, in use, of another artifact, or the disk refuses it."""


class TrustError(LccError):
    """An artifact brings code that nobody has allowed, or lacks the signature that was wanted."""


class LimitError(LccError):
    """An artifact takes more memory, or a program more time, than the app allows."""


class CacheError(LccError):
    """The cache cannot hold what was asked of it."""


def printable(text: str) -> str:
    r"""A text without line ends and control characters: each as Python writes it, such as \x1b."""
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def first_line(error: BaseException) -> str:
    """The first line that says something of an error of others, which may go on for pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def first_cause(error: BaseException) -> str:
    """What went wrong first, under errors of others that wrap it: its type and first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"
