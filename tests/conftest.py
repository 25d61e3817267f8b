"""What all tests share: a tiny model, compiled once; each program, converted to ONNX once."""

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Convert = Callable[..., Any]
LARGEST = 20_000_000  # bytes of a program's weights: those of SmolLM2 are not kept


@pytest.fixture(scope="session", autouse=True)
def convert() -> Iterator[Convert]:
    """Convert a program to ONNX once a process, however many tests compile it.

    Converting is two thirds of compiling a tiny model, and most tests compile the same few
    programs. Gives what converts anew.
    """
    from lcc.targets import onnx_mobile, onnx_runtime

    converted, anew = dict[str, Any](), onnx_runtime.to_onnx

    def once(program: Any, *how: Any) -> Any:
        if (key := content_of(program, *how)) is None:
            return anew(program, *how)
        if key not in converted:
            converted[key] = anew(program, *how)
        return converted[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        for module in (onnx_mobile, onnx_runtime):
            patch.setattr(module, "to_onnx", once)
        yield anew


@pytest.fixture(scope="session", autouse=True)
def programs_of_archives() -> Iterator[None]:
    """Export each program of an archive once a process: most tests compile the same few."""
    from lcc.passes.programs import archive_layers

    def once(make: Convert) -> Convert:
        made = dict[bytes, Any]()

        def kept(*given: Any, **sizes: Any) -> Any:
            key, tensors = numbers_of((given, sorted(sizes.items())))
            if key is None:
                return make(*given, **sizes)
            if key not in made:
                made[key] = make(*given, **sizes)
            share(made[key], tensors)
            return made[key]

        return kept

    with pytest.MonkeyPatch.context() as patch:
        for name in ("leave", "choose", "archive", "put_back", "attend", "vote"):
            make = getattr(archive_layers, f"{name}_program")
            patch.setattr(archive_layers, f"{name}_program", once(make))
        yield


def share(program: Any, tensors: list[Any]) -> None:
    """Give a kept program these tensors for its own that are equal.

    The programs of one model share them, and the memory table counts each once.
    """
    import torch

    for table in (program.exported.state_dict, program.exported.constants):
        for name, own in table.items():
            equal = (each for each in tensors if each.dtype == own.dtype and torch.equal(each, own))
            table[name] = next(equal, own)


def numbers_of(given: Any) -> tuple[bytes | None, list[Any]]:
    """What is equal for arguments with the same numbers, and the tensors among them.

    None for a policy that a test has made.
    """
    import torch

    tensors = []

    class Numbers(pickle.Pickler):
        def reducer_override(self, each: Any) -> Any:
            if not isinstance(each, torch.Tensor):
                return NotImplemented
            tensors.append(each)
            return bytes, (each.detach().contiguous().numpy().tobytes(),)

    told = io.BytesIO()
    try:
        Numbers(told).dump(given)
    except (AttributeError, pickle.PicklingError):
        return None, tensors
    return hashlib.sha256(told.getvalue()).digest(), tensors


def content_of(program: Any, lowered: dict | None = None, *more: Any) -> str | None:
    """Equal for programs that become the same file; None for one that is too large to keep."""
    import torch

    from lcc.ir.lazy_tensor import whole

    exported = program.exported
    tensors = {**exported.state_dict, **exported.constants}
    if sum(each.nbytes for each in tensors.values()) > LARGEST:
        return None
    operators = {str(k): f"{v.__module__}.{v.__qualname__}" for k, v in (lowered or {}).items()}
    parts = [str(exported), str(program.names), str(program.inputs), str(program.outputs)]
    digest = hashlib.sha256("\n".join([*parts, str(operators), str(more)]).encode())
    for name, tensor in tensors.items():
        numbers = whole(tensor).detach().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(numbers.view(torch.uint8).numpy().tobytes() if len(numbers) else b"")
    return digest.hexdigest()


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
