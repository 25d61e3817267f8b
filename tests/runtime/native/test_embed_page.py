"""docs/embed.md: its C and C++ run as they stand; test_java.py and test_node.py run the others."""

import re
import shutil
from pathlib import Path

import pytest

from tests.runtime.native import told

INCLUDE = told.ROOT / "runtime" / "native" / "include"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
LANGUAGES = {"bash", "c", "cpp", "java", "js", "swift"}


@pytest.mark.parametrize(
    ("language", "compiler", "standard"), [("c", "cc", "c11"), ("cpp", "c++", "c++17")]
)
def test_the_program_of_the_page(
    language: str,
    compiler: str,
    standard: str,
    liblcc: Path,
    tiny_artifact: Path,
    onnx_runtime: Path,
    tmp_path: Path,
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    app = told.app_folder(tmp_path, tiny_artifact)
    (app / f"app.{language}").write_text(told.program(language), encoding="utf-8")
    link = ("-L", liblcc.parent, f"-Wl,-rpath,{liblcc.parent}", "-llcc")
    command = (compiler, f"-std={standard}", *STRICT, f"app.{language}", "-o", "app")
    told.run(*command, "-I", INCLUDE, *link, cwd=app)
    output = told.run("./app", cwd=app, LCC_ONNXRUNTIME=onnx_runtime)
    assert output == told.page_prints(tiny_artifact)
    (app / "model.lcc").unlink()
    with pytest.raises(AssertionError, match=r"model\.lcc is not an artifact"):
        told.run("./app", cwd=app, LCC_ONNXRUNTIME=onnx_runtime)


def test_every_language_is_one_that_is_tested_or_said_not_to_be() -> None:
    text = told.PAGE.read_text("utf-8")
    assert set(re.findall(r"^```(\w+)$", text, flags=re.MULTILINE)) == LANGUAGES
    assert "never compiled" in text  # Swift
    assert "| Android: no SDK, no device |" in text
