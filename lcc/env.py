"""The LCC_* variables, read here and nowhere else, and what is installed beside lcc.

LCC_DUMP         folder for the graph after every pass
LCC_LOG          level of the log on stderr: debug, info, warning (default), error
LCC_CHECK        0 = skip the validation after every pass
LCC_TARGET       target of `lcc compile` where none is given, or fastest
LCC_THREADS      threads of the runtime where none are given
LCC_CACHE_DIR    what `lcc demo` compiles, and hashes of tokenizers (default ~/.cache/lcc)
LCC_LIBRARY      liblcc, for Python where the package has none, and for Node

Of the native runtime, which reads them itself (docs/embed.md):

LCC_ONNXRUNTIME  ONNX Runtime's library
LCC_TVM          folder of TVM's libraries
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from lcc.errors import ConfigError, MissingPackageError

LOG_LEVELS = ("debug", "info", "warning", "error")


def dump_folder() -> Path | None:
    """Return where to write the graph after every pass; None = nowhere."""
    value = os.environ.get("LCC_DUMP")
    return Path(value).expanduser() if value else None


def log_level() -> str:
    """Return the level of the log."""
    value = os.environ.get("LCC_LOG", "warning").lower()
    if value not in LOG_LEVELS:
        raise ConfigError(f"LCC_LOG is {value!r}, wanted one of {', '.join(LOG_LEVELS)}")
    return value


def quiet_torch_import() -> None:
    """Let torch, if it is imported later, say nothing of its ONNX exporter below errors.

    It sets the levels of its loggers when it is imported, whatever was set before.
    """
    os.environ.setdefault("TORCH_LOGS", "-onnx")


def check_passes() -> bool:
    """Tell whether a program is validated after every pass."""
    value = os.environ.get("LCC_CHECK", "1")
    if value not in ("0", "1"):
        raise ConfigError(f"LCC_CHECK is {value!r}, wanted 0 or 1")
    return value == "1"


def default_target() -> str | None:
    """Return the target used where none is given; None = lcc's own default."""
    return os.environ.get("LCC_TARGET") or None


def default_threads() -> int | None:
    """Return the number of threads used where none is given; None = the engine decides."""
    value = os.environ.get("LCC_THREADS")
    if not value:
        return None
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(f"LCC_THREADS is {value!r}, wanted 1 or more")
    return int(value)


def native_library() -> Path | None:
    """Return liblcc, where the variable names one."""
    value = os.environ.get("LCC_LIBRARY")
    if not value:
        return None
    if not Path(value).expanduser().is_file():
        raise ConfigError(f"LCC_LIBRARY is {value!r}, and no file is there; wanted liblcc")
    return Path(value).expanduser()


def with_libraries(folders: list[str], **variables: str) -> dict[str, str]:
    """Return the variables of a process that looks for libraries in these folders, too, last."""
    known = [each for each in [os.environ.get("LD_LIBRARY_PATH")] if each]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join([*known, *folders]), **variables}


def process_rank() -> int:
    """Return the number of this process among all that torchrun started; 0 where it did not."""
    return int(os.environ.get("RANK", "0"))


def cache_folder() -> Path:
    """Return the folder for files that can be made again."""
    value = os.environ.get("LCC_CACHE_DIR")
    return Path(value).expanduser() if value else Path.home() / ".cache" / "lcc"


def is_mistyped(name: str) -> bool:
    """Tell whether a variable begins with LCC_ but is none of those above."""
    return name.startswith("LCC_") and f"\n{name} " not in (__doc__ or "")


def mistyped_variables() -> list[str]:
    """Return the LCC_* variables that are set and mean nothing, so that a typo is not silent."""
    return sorted(name for name in os.environ if is_mistyped(name))


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a missing optional package into one line with the pip command that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "lcc":
            raise
        raise MissingPackageError(
            f"{error.name} is not installed; do: pip install 'long-context-compiler[{extra}]'"
        ) from error
