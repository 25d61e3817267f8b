"""What all tests share: a tiny model, compiled once; each program, converted to ONNX once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no mistake of ours.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

Convert = Callable[..., Any]
running: list[str] = []  # tests, the last one runs or has its fixtures made


@pytest.fixture(scope="session", autouse=True)
def convert() -> Iterator[Convert]:
    """Convert a program to ONNX once a process, however many tests compile it.

    Converting is two thirds of compiling a tiny model, and most tests compile the same few
    programs. Gives what converts anew.
    """
    from lcc.targets import onnx_mobile, onnx_runtime
    from lcc.testing.once import converted_content

    converted, anew = dict[str, Any](), onnx_runtime.to_onnx

    def once(program: Any, *how: Any) -> Any:
        if (key := converted_content(program, *how)) is None:
            return anew(program, *how)
        if key not in converted:
            converted[key] = anew(program, *how)
        return converted[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        for module in (onnx_mobile, onnx_runtime):
            patch.setattr(module, "to_onnx", once)
        yield anew


@pytest.fixture(scope="session", autouse=True)
def export_once() -> Iterator[None]:
    """Export each program of lcc's own modules once a process, and a model once a test."""
    import torch

    from lcc.testing.once import Exports

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", Exports(torch.export.export, lambda: running[-1]))
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which test runs: for `export_once`."""
    running.append(item.nodeid)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: two layers, byte tokenizer, chat template."""
    from lcc.testing.tiny import save_tiny

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    save_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_artifact(tiny_folder: Path) -> Path:
    """Capacity 128, budget 64: a page of text makes it evict some twenty times."""
    from lcc.compile import compile_model
    from lcc.config import CacheConfig, CompileConfig, PolicyConfig

    output = tiny_folder.parent / "tiny.lcc"
    cache = CacheConfig(capacity=128, budget=64, chunk_size=16, catalyst_size=32, recent_size=8)
    config = CompileConfig(cache=cache, policy=PolicyConfig(options={"catalyst": "What matters?"}))
    compile_model(tiny_folder, output, config)
    return output


@pytest.fixture(scope="session")
def golden_artifact(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives the artifact of a case of `lcc.testing.golden_cases`, compiled once."""
    from lcc.testing.golden_cases import Artifacts

    return Artifacts(tmp_path_factory.mktemp("goldens"))


@pytest.fixture(scope="session")
def native_build(request: pytest.FixtureRequest) -> Path:
    """The folder of liblcc and lcc-run, kept from run to run."""
    from lcc.testing import native_library

    if (given := request.config.getoption("--native-build")) is not None:
        return Path(given).resolve()
    if (missing := native_library.missing_tool()) is not None:
        pytest.skip(f"{missing} to build the native runtime with")
    return native_library.build(request.config.cache.mkdir("native"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --update-golden` writes the golden files anew; look at the diff before you commit.

    `--native-build FOLDER`: a build of the native runtime to test, such as one with sanitizers.
    """
    parser.addoption("--update-golden", action="store_true")
    parser.addoption("--native-build")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `lcc demo` keeps SmolLM2-135M, compiled once for all tests that want it."""
    return tmp_path_factory.mktemp("cache")
