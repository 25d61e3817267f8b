"""Where the tensors of a file of weights lie: what a target writes and an engine reads."""

from pathlib import Path

import msgspec

from lcc.errors import ArtifactError

ALIGNMENT = 4096  # bytes, of a tensor in the file: it is memory-mapped, and vectors are 64 long


class StoredTensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor: `offset` in bytes from the beginning of the file."""

    offset: int
    dtype: str
    shape: list[int]


def weights_files(target: str) -> tuple[str, str]:
    """Names of the file of weights of a target, and of its index."""
    stem = f"weights_{target.replace(':', '_')}"
    return f"{stem}.bin", f"{stem}.json"


def parse_index(data: bytes, path: Path) -> dict[str, list[StoredTensor]]:
    """Name of a function of the library -> the tensors it takes, in order.

    Raises ArtifactError, which names `path`, where the data is no index.
    """
    try:
        return msgspec.json.decode(data, type=dict[str, list[StoredTensor]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: no index of weights ({error}); compile anew") from None
