"""ONNX programs as the native runtime checks them: what Python refuses, in the same words."""

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from onnx import helper

from lcc.artifact.manifest import manifest_bytes, read_manifest
from lcc.errors import ArtifactError
from lcc.runtime.engines.onnx_file import check_program
from lcc.testing.onnx_programs import (
    NARROW,
    ORT_FORMAT,
    PLACES,
    SIZE,
    SPLITS,
    WIDE,
    WORK,
    cut_number,
    graph,
    loop,
    named,
    point_to,
)

ENTRY = b"\x0a\x08location\x12\x0bweights.bin"
LISTED = helper.make_model(graph(initializer=[named("weights.bin")]))


def python(data: bytes) -> str:
    """What Python's runtime says of it."""
    try:
        check_program(data, {"weights.bin"})
    except ArtifactError as error:
        return str(error)
    return "read"


def native(build: Path, folder: Path, programs: list[bytes]) -> list[str]:
    """What the native runtime says of each."""
    files = [folder / str(place) for place in range(len(programs))]
    for file, data in zip(files, programs, strict=True):
        file.write_bytes(data)
    command = [build / "replay", "program", *files]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_the_same_programs_are_refused_as_in_python(native_build: Path, tmp_path: Path) -> None:
    plain = LISTED.SerializeToString()
    assert plain.count(ENTRY) == 1
    programs = [
        *(make(named(name)).SerializeToString() for make in PLACES.values() for name in
          ("weights.bin", "other.bin", "../weights.bin", "*/_ORT_MEM_ADDR_/*", "")),
        *WORK.values(),
        *WIDE.values(),
        *SPLITS.values(),
        *NARROW.values(),
        loop("count", "", "v", nodes=SIZE),
        loop("count", "always", "v", nodes=SIZE),
        ORT_FORMAT,
        cut_number(LISTED),
        plain.replace(ENTRY, b"\x12\x0bweights.bin\x0a\x08location"),
        plain.replace(ENTRY, b"\x12\x0bweights.bin\x0a\x08lo\0ation"),
        plain.replace(ENTRY, ENTRY[:10] + ENTRY[:13]),
        b"\x0b\x0c",
        b"\x3a" + b"\xff" * 20,
        b"\x3a\xff\xff\xff\xff\x0flocation",
        *(plain[:size] for size in range(1, len(plain))),
    ]  # fmt: skip
    wanted = [python(data) for data in programs]
    assert wanted.count("read") > 5
    assert len(set(wanted)) >= 12
    assert native(native_build, tmp_path, programs) == wanted


@pytest.mark.parametrize("how", ["beside", "out of the list"])
def test_weights_that_the_manifest_does_not_list(
    native_build: Path, onnx_runtime: Path, tiny_artifact: Path, tmp_path: Path, how: str
) -> None:
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "m.lcc"))
    name = "other.bin" if how == "beside" else "weights.bin"
    command = [native_build / "lcc-run", folder, "--golden", "--engine", onnx_runtime]
    subprocess.run(command, check=True)
    if how == "beside":
        shutil.copy(folder / "weights.bin", folder / name)
        point_to(folder, name)
    else:
        manifest = read_manifest(folder)
        files = {key: entry for key, entry in manifest.files.items() if key != name}
        page = manifest_bytes(msgspec.structs.replace(manifest, files=files))
        (folder / "manifest.json").write_bytes(page)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f".onnx: it reads weights from '{name}', which the manifest does not" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_artifact_of_links_is_read(
    native_build: Path, onnx_runtime: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    """As in a hub's cache: ONNX Runtime finds weights behind links by the program's path alone."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "m"
    shutil.copytree(tiny_artifact, blobs)
    folder.mkdir(parents=True)
    for file in blobs.iterdir():
        (folder / file.name).symlink_to(file)
    command = [native_build / "lcc-run", folder, "--golden", "--engine", onnx_runtime]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
