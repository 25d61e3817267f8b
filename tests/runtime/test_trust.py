"""What may run of an artifact: code that is allowed, or that a trusted key has signed."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

import lcc.runtime
from lcc.artifact import minisign
from lcc.artifact.code import check_code
from lcc.artifact.cpu import best_level
from lcc.artifact.folder import file_entry
from lcc.artifact.manifest import BuiltEntry, manifest_bytes, read_manifest
from lcc.artifact.minisign import read_public_key
from lcc.artifact.signature import SIGNATURE, sign_artifact
from lcc.cli import app
from lcc.errors import ArtifactError, ConfigError, LccError, TargetError, TrustError
from lcc.targets import missing


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "m.lcc"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A secret key, and beside it release.key.pub."""
    result = CliRunner().invoke(app, ["sign", "--new-key", str(tmp_path / "release.key")])
    assert result.exit_code == 0, result.output
    return tmp_path / "release.key"


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, " ".join(result.output.split())


def claims(folder: Path, target: str) -> None:
    """The artifact says that its programs are for another target."""
    manifest = msgspec.structs.replace(read_manifest(folder), target=target)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))


@pytest.mark.parametrize(
    ("target", "kind"),
    [("tvm:cpu", "machine code"), ("tvm:new", "machine code"), ("reference", "pickled PyTorch")],
)
def test_no_code_runs_that_nobody_has_allowed(artifact: Path, target: str, kind: str) -> None:
    """Neither where an artifact of data claims to be code: the manifest alone decides nothing."""
    claims(artifact, target)
    words = rf"m\.lcc: target {target} runs {kind}.* \(\S+\.onnx and \d+ more\) in this process"
    with pytest.raises(TrustError, match=words) as caught:
        lcc.runtime.load(artifact)
    assert "allow it with allow_native=True, or --allow-native" in str(caught.value)
    with pytest.raises(LccError) as caught:
        lcc.runtime.load(artifact, allow_native=True)
    assert not isinstance(caught.value, TrustError)
    check_code(artifact, read_manifest(artifact), allowed=True)


COMMANDS = (
    ("run", "-p", "x"),
    ("chat",),
    ("verify", "--golden"),
    ("verify", "--model"),
    ("eval", "--tasks", "passkey", "--lengths", "300", "-q", "-o"),
    ("bench", "--lengths", "64", "-q", "-o"),
)


@pytest.mark.parametrize("what", COMMANDS, ids=" ".join)
def test_commands_run_none_either(
    artifact: Path, tiny_folder: Path, tmp_path: Path, what: tuple[str, ...]
) -> None:
    claims(artifact, "tvm:cpu")
    name, *more = what
    more += (
        {"-o": [str(tmp_path / "out")], "--model": [str(tiny_folder)]}.get(more[-1:][0], [])
        if more
        else []
    )
    code, output = command(name, artifact, *more)
    assert (code, "runs machine code of the artifact" in output) == (2, True), output


def test_nothing_is_unpickled_before_its_signature_is_checked(
    artifact: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lcc.targets import reference

    opened = list[Path]()
    monkeypatch.setattr(reference, "open_engine", lambda folder, _: opened.append(folder))
    claims(artifact, "reference")
    sign_artifact(artifact, minisign.new_key())
    ask = ("run", artifact, "-p", "x", "--trusted-key", f"{key}.pub")
    for flags in ((), ("--allow-native",)):
        code, output = command(*ask, *flags)
        assert (code, "signed by key" in output, opened) == (2, True, []), output
    sign_artifact(artifact, minisign.read_secret_key(key))
    command(*ask)
    assert opened == [artifact]


def test_what_is_no_code_is_taken_in_its_place(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    data = BuiltEntry(programs=manifest.programs)
    manifest = msgspec.structs.replace(manifest, target="tvm:cpu", also={"onnxruntime:cpu": data})
    (artifact / "manifest.json").write_bytes(manifest_bytes(manifest))
    assert lcc.runtime.load(artifact).manifest.target == "onnxruntime:cpu"
    with pytest.raises(TrustError):
        lcc.runtime.load(artifact, target="tvm:cpu")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_library_runs_where_it_is_allowed_or_signed(
    artifact: Path, key: Path, tmp_path: Path
) -> None:
    """What it does when it is loaded: writes a file. Others need not even be whole libraries."""
    if lacks := missing("tvm:cpu"):
        pytest.skip(lacks)
    ran, library, other = tmp_path / "ran", artifact / "programs.so", minisign.new_key()
    source = (
        "#include <stdio.h>\n__attribute__((constructor)) static void go(void) "
        f'{{ fclose(fopen("{ran}", "w")); }}\n'
    )
    build = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(build, input=source, text=True, check=True)
    manifest = read_manifest(artifact)
    programs = {
        name: msgspec.structs.replace(entry, file=library.name)
        for name, entry in manifest.programs.items()
    }
    files = manifest.files | {library.name: file_entry(library)}
    manifest = msgspec.structs.replace(
        manifest, target="tvm:cpu", cpu=best_level(), programs=programs, files=files
    )
    (artifact / "manifest.json").write_bytes(manifest_bytes(manifest))
    sign_artifact(artifact, minisign.read_secret_key(key))
    code = "import sys, lcc.runtime; lcc.runtime.load(sys.argv[1], **eval(sys.argv[2]))"
    for how, runs in (
        ({}, False),
        ({"trusted_keys": [str(other.public)]}, False),
        ({"trusted_keys": [str(other.public)], "allow_native": True}, False),
        ({"allow_native": True}, True),
        ({"trusted_keys": [f"{key}.pub"]}, True),
    ):
        ran.unlink(missing_ok=True)
        run = [sys.executable, "-c", code, str(artifact), repr(how)]
        subprocess.run(run, capture_output=True, check=False)
        assert ran.exists() == runs, how


def test_a_signature_stands_for_every_file(artifact: Path, key: Path) -> None:
    public = f"{key}.pub"
    with pytest.raises(TrustError, match=r"m\.lcc: not signed \(no manifest\.json\.minisig\)"):
        lcc.runtime.load(artifact, trusted_keys=[public])
    code, output = command("sign", artifact, "--key", key)
    assert code == 0, output
    model = lcc.runtime.load(artifact, trusted_keys=[public])
    assert (
        model.manifest
        == lcc.runtime.load(artifact, trusted_keys=[str(read_public_key(public))]).manifest
    )
    code, output = command("verify", artifact, "--signature", "--trusted-key", public)
    assert (code, "lcc artifact of tiny-llama for onnxruntime:cpu" in output) == (0, True)

    weights = artifact / "weights.bin"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"weights\.bin: changed"):
        lcc.runtime.load(artifact, trusted_keys=[public])
    assert command("verify", artifact, "--signature", "--trusted-key", public)[0] == 2
    assert command("sign", artifact, "--key", key)[0] == 2
    weights.write_bytes(data)

    page = (artifact / "manifest.json").read_bytes()
    (artifact / "manifest.json").write_bytes(page + b"\n")  # reads as before
    with pytest.raises(TrustError, match=r"minisig: not a signature by key [0-9A-F]{16} of what"):
        lcc.runtime.load(artifact, trusted_keys=[public])
    code, output = command("verify", artifact, "--signature", "--trusted-key", public)
    assert (code, output.startswith("NOT signed by a trusted key: ")) == (1, True)


def changed(text: str, line: int, place: int) -> str:
    """Another letter of base64, or of a comment, in one place."""
    lines = text.split("\n")
    old = lines[line][place]
    lines[line] = lines[line][:place] + ("B" if old != "B" else "C") + lines[line][place + 1 :]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: changed(text, 1, 40), "not a signature by key"),
        (lambda text: changed(text, 2, 30), "not a signature by key"),
        (lambda text: changed(text, 3, 30), "not a signature by key"),
        (lambda text: changed(text, 1, 4), "signed by key [0-9A-F]{16}, trusted: "),
        (lambda text: text[:100], "2 lines, wanted 4|no signature of minisign|1 lines, wanted 4"),
        (lambda text: "\0\n\0\n\0\n\0\n", "no signature of minisign"),
        (lambda text: "x" * 100_000, "1 lines, wanted 4"),
    ],
)
def test_signatures_that_are_none(artifact: Path, key: Path, change, words: str) -> None:
    path = sign_artifact(artifact, minisign.read_secret_key(key))
    path.write_text(change(path.read_text()))
    with pytest.raises(TrustError, match=words):
        lcc.runtime.load(artifact, trusted_keys=[f"{key}.pub"])


def test_only_a_key_that_is_trusted_counts(artifact: Path, key: Path, tmp_path: Path) -> None:
    sign_artifact(artifact, minisign.read_secret_key(key))
    other = minisign.new_key()
    with pytest.raises(TrustError, match=r"signed by key .*, trusted: "):
        lcc.runtime.load(artifact, trusted_keys=[str(other.public)])
    same_number = minisign.SecretKey(read_public_key(f"{key}.pub").number, other.seed)
    with pytest.raises(TrustError, match="not a signature by key"):
        lcc.runtime.load(artifact, trusted_keys=[str(same_number.public)])
    lcc.runtime.load(artifact, trusted_keys=[str(other.public), f"{key}.pub"])
    for wrong, words in (
        ([], r"trusted_keys is \[\], wanted a list"),
        (f"{key}.pub", "wanted a list of public keys"),
        ([tmp_path / "nowhere"], "no public key; wanted a file that minisign"),
        ([key], "no public key"),
    ):
        with pytest.raises(ConfigError, match=words):
            lcc.runtime.load(artifact, trusted_keys=wrong)
    with pytest.raises(ConfigError, match='verify is "size" and trusted_keys is given'):
        lcc.runtime.load(artifact, trusted_keys=[f"{key}.pub"], verify="size")


def test_secret_keys(key: Path, artifact: Path, tmp_path: Path) -> None:
    assert key.stat().st_mode & 0o077 == 0, "for its owner alone"
    for arguments, words in (
        (["--new-key", key], "release.key is there already"),
        ([artifact], "wanted an artifact and --key, or --new-key"),
        ([artifact, "--key", f"{key}.pub"], "no secret key; wanted one of minisign -G"),
        ([artifact, "--key", tmp_path / "none"], "none: cannot be read"),
    ):
        code, output = command("sign", *arguments)
        assert (code, words in output) == (2, True), output
    text = key.read_text()
    key.write_text(changed(text, 1, 120))
    with pytest.raises(ConfigError, match=r"damaged \(the public key in it"):
        minisign.read_secret_key(key)


minisign_tool = pytest.mark.skipif(shutil.which("minisign") is None, reason="needs minisign")


@minisign_tool
def test_the_tool_minisign_checks_what_lcc_has_signed(artifact: Path, key: Path) -> None:
    sign_artifact(artifact, minisign.read_secret_key(key))
    check = ["minisign", "-V", "-p", f"{key}.pub", "-m", str(artifact / "manifest.json")]
    done = subprocess.run(check, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Trusted comment: lcc artifact of tiny-llama" in done.stdout
    sign = ["minisign", "-S", "-W", "-s", str(key), "-m", str(artifact / "manifest.json")]
    subprocess.run(sign, check=True, capture_output=True)  # and takes its keys
    lcc.runtime.load(artifact, trusted_keys=[f"{key}.pub"])
    with (artifact / "manifest.json").open("ab") as file:
        file.write(b"\n")
    assert subprocess.run(check, check=False, capture_output=True).returncode != 0


@minisign_tool
@pytest.mark.parametrize("password", ["", pytest.param("secret words", marks=pytest.mark.slow)])
def test_lcc_takes_keys_and_signatures_of_the_tool(
    artifact: Path, tmp_path: Path, password: str
) -> None:
    public, secret = tmp_path / "tool.pub", tmp_path / "tool.key"
    make = ["minisign", "-G", "-f", "-p", str(public), "-s", str(secret)]
    said = f"{password}\n{password}\n"
    done = subprocess.run(
        make if password else [*make, "-W"], input=said, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if password:  # a gigabyte and seconds, each time it is tried
        with pytest.raises(ConfigError, match="the key is under a password"):
            minisign.read_secret_key(secret)
        with pytest.raises(ConfigError, match="the password is wrong"):
            minisign.read_secret_key(secret, "others")
    sign_artifact(artifact, minisign.read_secret_key(secret, password or None))
    lcc.runtime.load(artifact, trusted_keys=[public])
    if not password:
        (artifact / SIGNATURE).unlink()
        sign = ["minisign", "-S", "-s", str(secret), "-m", str(artifact / "manifest.json")]
        subprocess.run(sign, check=True, capture_output=True)
        lcc.runtime.load(artifact, trusted_keys=[public])


def test_an_engine_of_the_app_is_the_apps_own(artifact: Path) -> None:
    """What the app itself has made it need not allow."""
    claims(artifact, "tvm:cpu")
    engine = lcc.runtime.load(tiny := artifact, engine=_Engine()).engine
    assert (type(engine), tiny) == (_Engine, artifact)


class _Engine:
    def load_all(self) -> None:
        """Nothing."""


def test_a_target_that_is_not_here_is_named_first(artifact: Path) -> None:
    claims(artifact, "onnxruntime:nnapi")
    with pytest.raises(TargetError, match="onnxruntime:nnapi"):
        lcc.runtime.load(artifact)
