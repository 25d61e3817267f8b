"""`lcc sign`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lcc.artifact import minisign
from lcc.artifact.outputs import check_output
from lcc.artifact.signature import sign_artifact
from lcc.errors import ConfigError


def command(
    artifact: Annotated[Path | None, typer.Argument(help="The artifact, a folder.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="Secret key, of --new-key or minisign -G.")
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make a key first: this file, and FILE.pub.")
    ] = None,
) -> None:
    """Sign an artifact, so that whoever has your public key knows that it is yours.

    Every file is compared with manifest.json, and manifest.json is signed, in the format of
    minisign: manifest.json.minisig, beside it. Whoever has your secret key signs as you: keep it
    out of repositories. --new-key makes one without a password, `minisign -G` one with.

    \b
    Examples:
      lcc sign --new-key release.key                    and give release.key.pub to your users
      lcc sign m.lcc --key release.key
      lcc verify m.lcc --signature --trusted-key release.key.pub
      lcc run m.lcc --trusted-key release.key.pub --prompt "Who wrote Faust?"
    """
    if (artifact is None) != (key is None) or (artifact is None and new_key is None):
        raise ConfigError("wanted an artifact and --key, or --new-key, or all three")
    if new_key is not None:
        _make(new_key)
    if artifact is not None and key is not None:
        locked = minisign.is_locked(key)
        password = typer.prompt("Password", hide_input=True, err=True) if locked else None
        secret = minisign.read_secret_key(key, password)
        path = sign_artifact(artifact, secret)
        typer.echo(f"{path}\nsigned by {secret.public}")


def _make(path: Path) -> None:
    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        if each.exists():
            raise ConfigError(f"{each} is there already; choose another name")
        check_output(each)
    secret = minisign.new_key()
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # for its owner alone
    with open(number, "w", encoding="utf-8") as file:
        file.write(secret.text())
    public.write_text(secret.public.text())
    typer.echo(f"{path}: secret key\n{public}: public key {secret.public}")
