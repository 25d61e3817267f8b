"""One tiny model, compiled once, for every test that needs an artifact but not its numbers."""

from pathlib import Path

import pytest


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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --update-golden` writes the golden files anew; look at the diff before you commit."""
    parser.addoption("--update-golden", action="store_true")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `lcc demo` keeps SmolLM2-135M, compiled once for all tests that want it."""
    return tmp_path_factory.mktemp("cache")
