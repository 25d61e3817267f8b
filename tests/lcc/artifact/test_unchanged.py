"""Files that are replaced between the check of their hash and the moment when they are loaded."""

import os
from types import SimpleNamespace

import pytest

from lcc.artifact.folder import check_unchanged, verify_files
from lcc.artifact.manifest import FileEntry
from lcc.errors import ArtifactError

SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing


@pytest.fixture
def stamps(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"")
    files = {name: FileEntry(bytes=0, sha256=SHA256) for name in ("a.onnx", "b.onnx")}
    return verify_files(tmp_path, SimpleNamespace(files=files))


def replace(path):
    path.with_name("new").write_bytes(b"")
    os.replace(path.with_name("new"), path)


def touch(path):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


CHANGES = {
    "another file of the same content": replace,
    "written to": lambda path: path.write_bytes(b"new"),
    "touched": touch,
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_replaced_is_named(stamps, tmp_path, change):
    check_unchanged(stamps)
    CHANGES[change](tmp_path / "b.onnx")
    with pytest.raises(ArtifactError, match=r"b\.onnx: replaced while the artifact was loaded"):
        check_unchanged(stamps)
