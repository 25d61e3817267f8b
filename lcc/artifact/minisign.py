"""Keys and signatures as the tool minisign writes and reads them: Ed25519 over a BLAKE2b hash.

https://jedisct1.github.io/minisign/. Ed25519 and scrypt are libsodium's, by PyNaCl.

    public key  comment, then base64 of "Ed", number of the key [8], key [32]
    secret key  comment, then base64 of "Ed", "Sc" or zeros, "B2", salt [32], two limits [8 each],
                and, under a password's stream if there is one: number [8], seed [32], public key
                [32], checksum [32]
    signature   comment, base64 of "ED", number [8], signature of the hash [64]; a comment that is
                signed, base64 of the signature of the one before and of this comment [64]
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcc.env import needs_extra
from lcc.errors import ConfigError, TrustError

PURE, HASHED = b"Ed", b"ED"
SCRYPT, PLAIN, BLAKE2B = b"Sc", b"\0\0", b"B2"
SIGNED_COMMENT = "trusted comment: "
LARGEST = 1 << 12  # bytes of a file of a key or signature


@dataclass(frozen=True)
class PublicKey:
    """Checks signatures; `number` says which key it is, and proves nothing."""

    number: bytes
    key: bytes

    def __str__(self) -> str:
        """As minisign shows it, and takes it with -P."""
        return base64.b64encode(PURE + self.number + self.key).decode()

    def text(self) -> str:
        """The content of a file of it."""
        return f"untrusted comment: minisign public key {_name(self.number)}\n{self}\n"


@dataclass(frozen=True, repr=False)
class SecretKey:
    """Signs; whoever has it is taken for its owner."""

    number: bytes
    seed: bytes

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs."""
        return PublicKey(self.number, bytes(_nacl().SigningKey(self.seed).verify_key))

    def text(self) -> str:
        """The content of a file of it, under no password."""
        body = PURE + PLAIN + BLAKE2B + bytes(48) + self.number + self.seed + self.public.key
        body += bytes(32)  # a checksum is for passwords alone
        encoded = base64.b64encode(body).decode()
        return f"untrusted comment: minisign secret key {_name(self.number)}\n{encoded}\n"


def _nacl() -> Any:
    with needs_extra("sign"):
        import nacl.signing
    return nacl.signing


def _name(number: bytes) -> str:
    return number[::-1].hex().upper()


def _checksum(secret: bytes) -> bytes:
    return hashlib.blake2b(PURE + secret[:72], digest_size=32).digest()


def new_key() -> SecretKey:
    """A key of random bytes."""
    return SecretKey(os.urandom(8), os.urandom(32))


def read_public_key(given: str | Path) -> PublicKey:
    """A key as text, or from the file that is named.

    Raises:
        ConfigError: it is neither.
    """
    text = str(given)
    body = _decoded(text)
    if body is None and Path(given).is_file():
        body = _decoded(_lines(Path(given), ConfigError, 2)[1])
    if body is None or len(body) != 42 or body[:2] != PURE:
        raise ConfigError(
            f"{text}: no public key; wanted a file that minisign or lcc sign has made, or its "
            "second line, RW..."
        )
    return PublicKey(body[2:10], body[10:])


def read_secret_key(path: Path, password: str | None = None) -> SecretKey:
    """The key in a file, under a password or under none.

    Raises:
        ConfigError: it is no such file, or needs a password, or another one.
    """
    body = _decoded(_lines(path, ConfigError, 2)[1])
    kinds = None if body is None else (body[:2], body[2:4], body[4:6])
    if body is None or len(body) != 158 or kinds not in _KINDS:
        raise ConfigError(f"{path}: no secret key; wanted one of minisign -G or lcc sign --new-key")
    secret = body[54:]
    if is_locked(path):
        if password is None:
            raise ConfigError(f"{path}: the key is under a password, and none was given")
        secret = bytes(a ^ b for a, b in zip(secret, _stream(body, password), strict=True))
        if _checksum(secret) != secret[72:]:
            raise ConfigError(f"{path}: the password is wrong (the checksum of the key differs)")
    key = SecretKey(secret[:8], secret[8:40])
    if key.public.key != secret[40:72]:
        raise ConfigError(f"{path}: damaged (the public key in it is another one's)")
    return key


_KINDS = ((PURE, SCRYPT, BLAKE2B), (PURE, PLAIN, BLAKE2B))


def is_locked(path: Path) -> bool:
    """Whether a secret key is under a password."""
    body = _decoded(_lines(path, ConfigError, 2)[1]) or b""
    return body[2:4] == SCRYPT


def _stream(body: bytes, password: str) -> bytes:
    """What a password makes of the salt and limits of a secret key."""
    _nacl()
    from nacl.exceptions import CryptoError
    from nacl.pwhash import scrypt

    work, memory = (int.from_bytes(body[at : at + 8], "little") for at in (38, 46))
    try:
        return bytes(scrypt.kdf(104, password.encode(), body[6:38], opslimit=work, memlimit=memory))
    except (CryptoError, OverflowError) as error:
        raise ConfigError(f"the limits of the secret key cannot be met here: {error}") from None


def sign(data: bytes, secret: SecretKey, comment: str) -> str:
    """The content of a signature's file; `comment` is signed with it, and has one line."""
    key = _nacl().SigningKey(secret.seed)
    first = key.sign(hashlib.blake2b(data).digest()).signature
    second = key.sign(first + comment.encode()).signature
    body = base64.b64encode(HASHED + secret.number + first).decode()
    return (
        f"untrusted comment: signature of key {_name(secret.number)}\n{body}\n"
        f"{SIGNED_COMMENT}{comment}\n{base64.b64encode(second).decode()}\n"
    )


def check(data: bytes, signature: Path, keys: list[PublicKey]) -> tuple[PublicKey, str]:
    """The key that has signed this data, and the comment that it has signed with it.

    Raises:
        TrustError: the signature is no such file, is of another key, or of other data.
    """
    _, first, comment, second = _lines(signature, TrustError, 4)
    body, over = _decoded(first), _decoded(second)
    if body is None or len(body) != 74 or over is None or len(over) != 64:
        raise TrustError(f"{signature}: no signature of minisign; sign the artifact anew")
    if body[:2] != HASHED or not comment.startswith(SIGNED_COMMENT):
        raise TrustError(
            f"{signature}: a signature of an old kind; wanted one of a hash, minisign -H"
        )
    comment = comment.removeprefix(SIGNED_COMMENT)
    key = next((each for each in keys if each.number == body[2:10]), None)
    if key is None:
        wanted = ", ".join(_name(each.number) for each in keys)
        raise TrustError(f"{signature}: signed by key {_name(body[2:10])}, trusted: {wanted}")
    _check(key, hashlib.blake2b(data).digest(), body[10:], signature)
    _check(key, body[10:] + comment.encode(), over, signature)
    return key, comment


def _check(key: PublicKey, message: bytes, signature: bytes, path: Path) -> None:
    from nacl.exceptions import CryptoError

    try:
        _nacl().VerifyKey(key.key).verify(message, signature)
    except (CryptoError, ValueError):
        raise TrustError(
            f"{path}: not a signature by key {_name(key.number)} of what lies beside it; "
            "do not use it"
        ) from None


def _lines(path: Path, kind: type[ConfigError] | type[TrustError], count: int) -> list[str]:
    try:
        with path.open("rb") as file:
            lines = [line.rstrip("\r") for line in file.read(LARGEST).decode().split("\n")]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise kind(f"{path}: cannot be read ({why})") from None
    if len(lines) < count:
        raise kind(f"{path}: {len(lines)} lines, wanted {count}")
    return lines[:count]


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
