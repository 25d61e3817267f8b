"""Code that an artifact brings: what of it would run, and whether it may."""

from pathlib import Path

from lcc.artifact.manifest import Manifest
from lcc.errors import TrustError

KINDS = {  # beginning of a target's name -> what its programs are
    "tvm": "machine code",
    "reference": "pickled PyTorch programs, which can hold any code",
}


def check_code(folder: str | Path, manifest: Manifest, *, allowed: bool) -> None:
    """Refuse to run code of an artifact that nobody has allowed.

    ONNX programs are data for an engine, and always allowed.

    Raises:
        TrustError: says what would run, and how it is allowed.
    """
    kind = next((what for name, what in KINDS.items() if manifest.target.startswith(name)), None)
    if kind is None or allowed:
        return
    files = sorted({entry.file for entry in manifest.programs.values()})
    more = f" and {len(files) - 1} more" if files[1:] else ""
    raise TrustError(
        f"{folder}: target {manifest.target} runs {kind} of the artifact ({files[0]}{more}) in "
        "this process, with all that it may do; if you trust whoever made it, allow it with "
        "allow_native=True, or --allow-native"
    )
