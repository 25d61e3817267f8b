"""Tiny models, specialized and compiled once for all tests of a process that want the same one."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lcc.capture.export import capture
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, KvPrecision, PolicyConfig, Precision
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import make_policy
from lcc.passes.specialize import Specialized, Subject, specialize
from lcc.sources.models import LoadedModel
from lcc.testing.tiny import random_heads, tiny_model

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
HYBRID = (
    "0: sink_window(sink=2, window=9); 1: full; "
    "2: block_sparse(block=4, stride=3, local=2, reach=12, shift=1)"
)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def layers_of(plan: str) -> dict[str, int]:
    """What a plan asks of the tiny model: a layer for each kind."""
    return {"num_hidden_layers": 3} if plan == HYBRID else {}


@functools.cache
def _captured(architecture: str, plan: str) -> ModelGraph:
    return capture(tiny_model(architecture, **layers_of(plan)))


@functools.cache
def _specialized(architecture: str, policy: str, plan: str) -> Specialized:
    model = tiny_model(architecture, **layers_of(plan))
    heads = random_heads(model) if policy == "locret" else None
    config = CompileConfig(cache=CACHE, policy=PolicyConfig(name=policy), plan=plan)
    captured = _captured(architecture, plan)
    ends = np.arange(captured.vocab_size) % 7 == 0  # tokens that end a sentence
    subject = Subject(captured, "tiny", architecture, None, ends, heads)
    return specialize(subject, config, make_policy(config.policy))


@pytest.fixture(scope="session")
def cache() -> CacheConfig:
    """Sizes of everything here: 200 tokens make it evict three times and more."""
    return CACHE


@pytest.fixture(scope="session")
def hybrid() -> str:
    """A plan of three layers, one of each kind."""
    return HYBRID


@pytest.fixture(scope="session")
def specialized() -> Callable[..., Specialized]:
    """The programs of a tiny model before any target has rewritten them."""

    def build(
        architecture: str = "llama", policy: str = "knorm", plan: str = "dense"
    ) -> Specialized:
        return _specialized(architecture, policy, plan)

    return build


@pytest.fixture(scope="session")
def loaded(tiny_folder: Path) -> Callable[..., LoadedModel]:
    """A tiny model with the tokenizer of bytes."""
    files = {name: (tiny_folder / name).read_bytes() for name in TOKENIZER}

    @functools.cache
    def load(architecture: str = "llama", plan: str = "dense") -> LoadedModel:
        model = tiny_model(architecture, **layers_of(plan))
        return LoadedModel(model, architecture, architecture, 512, files)

    return load


@pytest.fixture(scope="session")
def compiled(
    loaded: Callable[..., LoadedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The artifact of a tiny model."""

    @functools.cache
    def build(
        *targets: str,
        architecture: str = "llama",
        policy: str = "snapkv",
        plan: str = "dense",
        precision: Precision = "fp32",
        kv_precision: KvPrecision = "fp32",
    ) -> Path:
        config = CompileConfig(
            target=targets[0],
            also=targets[1:],
            cache=CACHE,
            policy=PolicyConfig(name=policy),
            plan=plan,
            precision=precision,
            kv_precision=kv_precision,
        )
        folder = tmp_path_factory.mktemp("compiled") / "m.lcc"
        compile_model(loaded(architecture, plan), folder, config)
        return folder

    return build


@pytest.fixture(scope="module", autouse=True)
def unchecked() -> Iterator[None]:
    """The passes are checked elsewhere, by tests that may run after these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LCC_CHECK", "0")
        yield
