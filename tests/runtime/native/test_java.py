"""The Java classes on a desktop JVM: tokens as in Python, errors, callbacks, threads."""

import json
import shutil
from pathlib import Path

import pytest

from tests.runtime.native import told

JAVA = told.ROOT / "runtime" / "native" / "java"
USE = Path(__file__).parent / "java" / "UseLcc.java"
UTF8 = ("-Dfile.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8", "-Dstdout.encoding=UTF-8")


@pytest.fixture(scope="module")
def build(liblcc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lcc.jar and liblcc_jni, built as the page says."""
    for tool in ("cmake", "c++", "javac", "java"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("jni")
    quick = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_UNITY_BUILD=ON")
    told.run("cmake", "-S", JAVA, "-B", folder, f"-DLCC_LIBRARY={liblcc}", *quick, cwd=folder)
    told.run("cmake", "--build", folder, cwd=folder)
    return folder


def test_the_classes_do_as_python_does(
    build: Path, tiny_artifact: Path, onnx_runtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text(told.TEXT, encoding="utf-8")
    jar = f"{build}/lcc.jar"
    compiler = ("javac", "--release", "11", "-encoding", "UTF-8", "-Xlint:all", "-Werror")
    told.run(*compiler, "-cp", jar, "-d", tmp_path, USE, cwd=tmp_path)
    java = ("java", "-Xcheck:jni", f"-Djava.library.path={build}", "-cp", f"{jar}:{tmp_path}")
    arguments = ("UseLcc", tiny_artifact, onnx_runtime, tmp_path / "text", tmp_path)
    output = told.run(*java, *UTF8, *arguments, cwd=tmp_path)
    assert b"WARNING" not in output  # of -Xcheck:jni
    got, wanted = told.lines(output), told.expected(tiny_artifact)
    count = len(wanted["ids"])
    assert json.loads(got["ids"]) == wanted["ids"]
    assert json.loads(got["kept"]) == wanted["kept"]
    for name in ("next", "stream next", "parts next"):
        assert json.loads(got[name]) == wanted["next"], name
    signed = [byte - 256 if byte > 127 else byte for byte in wanted["answer"]]
    assert json.loads(got["answer"]) == signed
    assert json.loads(got["chat"]) == wanted["chat"]
    assert got["stats"] == wanted["stats"]
    assert got["read"] == f"{count} 1.0 false"
    for name in ("stream", "parts", "parts kept", "after the model's close"):
        assert got[name] == str(count), name
    for name in (
        *("decoded", "marked", "kept in a cycle", "cycles", "best", "again", "goes on"),
        "archived",
    ):
        assert got[name] == "true", name
    assert got["golden"] == "reproduced"
    assert got["nll"] == "5"
    assert got["listener stopped"] == "2 true"
    for name in ("cancelled", "closed in a callback", "stream stopped"):
        assert got[name] == "true true", name
    assert got["stream fails"] == "IOException: from the stream"
    assert got["stream kept"] == "true"
    assert got["parts fail"] == "NullPointerException: ids"
    assert got["no archive"] == got["detached"] == "-1"
    assert got["missing"].startswith("LCC_ERROR_ARTIFACT: ")
    assert "nothing.lcc" in got["missing"]
    assert got["busy"].startswith("LCC_ERROR_BUSY: ")
    assert got["option"].startswith("LCC_ERROR_CONFIG: ")
    assert got["half of a pair"].startswith("LCC_ERROR_CONFIG: ")
    assert got["in use"].startswith("LCC_ERROR_ARCHIVE: ")
    assert got["thrown"] == "IllegalArgumentException: from the listener"
    assert got["thrown in a cycle"] == "IllegalArgumentException: from the hook"
    assert got["closed model"].startswith("IllegalStateException: the model is closed")
    assert got["after close"].startswith("IllegalStateException: the session is closed")
    assert int(got["logged"]) > 0


def test_the_program_of_the_page(
    build: Path, tiny_artifact: Path, onnx_runtime: Path, tmp_path: Path
) -> None:
    app = told.app_folder(tmp_path, tiny_artifact)
    (app / "App.java").write_text(told.program("java"), encoding="utf-8")
    java = ("java", f"-Djava.library.path={build}", *UTF8, "-cp", f"{build}/lcc.jar")
    output = told.run(*java, "App.java", cwd=app, LCC_ONNXRUNTIME=onnx_runtime)
    assert output == told.page_prints(tiny_artifact)
