"""The signature of an artifact: `manifest.json.minisig`, beside what it signs.

What is signed is manifest.json, which names every other file with its sha256: so it stands for all
of them, once they are compared. `minisign -V -p KEY.pub -m manifest.json` checks it, too.
"""

from collections.abc import Sequence
from pathlib import Path

from lcc.artifact import minisign
from lcc.artifact.folder import verify_files
from lcc.artifact.manifest import MANIFEST, manifest_data, parse_manifest, targets_of
from lcc.artifact.minisign import PublicKey, SecretKey
from lcc.artifact.replace import write_pieces
from lcc.errors import ArtifactError, TrustError

SIGNATURE = f"{MANIFEST}.minisig"


def check_signature(
    folder: str | Path, data: bytes, keys: Sequence[PublicKey]
) -> tuple[PublicKey, str]:
    """The key that has signed this manifest, and the comment that it has signed with it.

    data    the bytes of manifest.json, as they are used

    Raises:
        TrustError: there is no signature, or none by any of these keys.
    """
    path = Path(folder) / SIGNATURE
    if not path.is_file():
        raise TrustError(
            f"{folder}: not signed (no {SIGNATURE}), and only what a trusted key has signed is "
            "wanted; get it anew from whoever made it, or trust no key in particular"
        )
    return minisign.check(data, path, list(keys))


def verify_signature(folder: str | Path, given: Sequence[str | Path]) -> tuple[PublicKey, str]:
    """The same with public keys as text or files, of an artifact whose every file is as signed.

    Raises:
        ArtifactError: a file is not as the manifest says.
        ConfigError: what is given is no public key.
        TrustError: as `check_signature`.
    """
    data = manifest_data(folder)
    signed = check_signature(folder, data, [minisign.read_public_key(each) for each in given])
    verify_files(folder, parse_manifest(data, Path(folder) / MANIFEST))
    return signed


def sign_artifact(folder: str | Path, secret: SecretKey) -> Path:
    """Sign an artifact whose files are as its manifest says; returns the signature's path.

    Raises:
        ArtifactError: it is damaged, or the disk refuses.
    """
    path = Path(folder) / SIGNATURE
    data = manifest_data(folder)
    manifest = parse_manifest(data, Path(folder) / MANIFEST)
    verify_files(folder, manifest)
    name = "".join(letter for letter in manifest.model.name if letter.isprintable())
    comment = f"lcc artifact of {name[:200]} for {', '.join(targets_of(manifest))}"
    try:
        write_pieces(path, [minisign.sign(data, secret, comment).encode()])
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from None
    return path
