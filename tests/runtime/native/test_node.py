"""The Node package: tokens as in Python, errors, callbacks, an event loop that goes on."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runtime.native import told

NODE = told.ROOT / "runtime" / "native" / "node"
USE = Path(__file__).parent / "node" / "use_lcc.js"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and koffi in its node_modules."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("app")
    how = ("--ignore-scripts", "--no-audit", "--no-fund", "--install-links", "--prefer-offline")
    command = ["npm", "install", *how, "--prefix", str(folder), str(NODE)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install koffi within two minutes")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot install koffi: {error.stderr.strip()[:200]}")
    return folder


def test_the_package_does_as_python_does(
    app: Path, liblcc: Path, tiny_artifact: Path, onnx_runtime: Path, tmp_path: Path
) -> None:
    shutil.copy2(USE, app)
    (tmp_path / "text").write_text(told.TEXT, encoding="utf-8")
    command = ("node", USE.name, tiny_artifact, onnx_runtime, tmp_path / "text", tmp_path)
    got = told.lines(told.run(*command, cwd=app, LCC_LIBRARY=liblcc))
    wanted = told.expected(tiny_artifact)
    count = len(wanted["ids"])
    for name in ("ids", "kept", "next", "answer", "chat"):
        assert json.loads(got[name]) == wanted[name], name
    assert got["stats"] == wanted["stats"]
    assert got["read"] == f"{count} 1 false"
    assert got["rewound"] == got["stream"] == got["parts"] == str(count)
    assert json.loads(got["stream next"]) == json.loads(got["parts next"]) == wanted["next"]
    assert got["stream fails"] == "Error: from the stream"
    for name in (
        *(
            "event loop goes on",
            "decoded",
            "marked",
            "zero byte",
            "cycles",
            "best",
            "again",
            "stop",
        ),
        *("goes on", "listener stopped", "archived", "stream kept"),
    ):
        assert got[name] == "true", name
    assert got["golden"] == "reproduced"
    assert got["nll"] == "5"
    for name in ("cancelled", "closed while it reads", "stream stopped"):
        assert got[name] == "true true", name
    assert got["detached"] == "-1"
    for name, word in (
        *(("missing", "ARTIFACT"), ("busy", "BUSY"), ("option", "CONFIG"), ("in use", "ARCHIVE")),
        *(("half of a pair", "CONFIG"), ("unknown option", "CONFIG: unknown option maxTokens")),
        *(
            ("thrown", "Error: from the listener"),
            ("thrown in a cycle", "Error: from the listener"),
        ),
        *(("closed model", "Error: the model is closed"), ("after close", "Error: the session is")),
    ):
        assert got[name].startswith(word), (name, got[name])


def test_the_program_of_the_page(
    app: Path, liblcc: Path, tiny_artifact: Path, onnx_runtime: Path
) -> None:
    told.app_folder(app, tiny_artifact)
    (app / "app.js").write_text(told.program("js"), encoding="utf-8")
    output = told.run("node", "app.js", cwd=app, LCC_LIBRARY=liblcc, LCC_ONNXRUNTIME=onnx_runtime)
    assert output == told.page_prints(tiny_artifact)


def test_stacks_are_large_enough_for_an_engine(app: Path, liblcc: Path) -> None:
    code = """
    const koffi = require('koffi');
    if (process.argv[1] === 'before') koffi.load(null);
    const { Model } = require('long-context-compiler');
    console.log(`bytes\\t${koffi.config().async_stack_size}`);
    Model.open('nothing').catch((error) => console.log(`said\\t${error.status} ${error.message}`));
    """
    got = told.lines(told.run("node", "-e", code, cwd=app, LCC_LIBRARY=liblcc))
    assert int(got["bytes"]) >= 8 << 20
    assert got["said"].startswith("3 nothing")
    got = told.lines(told.run("node", "-e", code, "before", cwd=app, LCC_LIBRARY=liblcc))
    assert re.match(r"2 koffi has stacks of \d+ bytes, .*; require long-context", got["said"])


def test_structs_are_those_of_the_header() -> None:
    header = (told.ROOT / "runtime/native/include/lcc.h").read_text("utf-8")
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    library = (NODE / "lib" / "library.js").read_text("utf-8")
    page = library.partition("const STRUCTS = {")[2].partition("\n};")[0]
    bound = re.findall(r"  (lcc_\w+): \{(.*?)\}", page, flags=re.DOTALL)
    assert len(bound) == 9
    plain = {"lcc_progress_fn": "void *", "const char *const *": "const char **"}
    for name, members in bound:
        (body,) = re.findall(rf"typedef struct {name} \{{(.*?)\}} {name};", header, flags=re.DOTALL)
        wanted = [re.match(r"\s*(.*?)(\w+)$", line) for line in body.split(";") if line.strip()]
        types = {m[2]: plain.get(m[1].strip(), m[1].strip()) for m in wanted if m}
        got = dict(re.findall(r"(\w+): '([^']+)'", members))
        assert list(got) == list(types), name
        for member, kind in got.items():
            assert kind == types[member] or (kind == "void *" and types[member][-1] == "*"), member
