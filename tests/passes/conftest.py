"""Tiny models, specialized once for all tests that only look at them, and a way to run programs."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, KvPrecision, PolicyConfig, Positions
from lcc.ir.program import Program
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import make_policy
from lcc.passes.specialize import Specialized, Subject, specialize
from lcc.testing.tiny import VOCAB_SIZE, random_heads, tiny_model

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
SENTENCE_ENDS = np.isin(np.arange(VOCAB_SIZE), [ord(each) for each in ".!?\n"])


@pytest.fixture(scope="session")
def captured() -> ModelGraph:
    """A llama of two layers, four query heads and two KV heads."""
    return capture(tiny_model("llama"))


@pytest.fixture(scope="session")
def specialized(captured: ModelGraph) -> Callable[..., Specialized]:
    """`specialized(policy, with_heads=..., plan=..., ...)` of that model."""

    @functools.cache
    def make(
        name: str,
        *,
        with_heads: bool = False,
        plan: str = "dense",
        positions: Positions = "contiguous",
        kv_precision: KvPrecision = "fp32",
    ) -> Specialized:
        cache = CacheConfig(
            **{each: getattr(CACHE, each) for each in CACHE.__struct_fields__}
            | {"positions": positions}
        )
        config = CompileConfig(cache=cache, plan=plan, kv_precision=kv_precision)
        policy = make_policy(PolicyConfig(name=name), with_heads=with_heads)
        heads = random_heads(tiny_model("llama")) if with_heads or name == "locret" else None
        subject = Subject(captured, "tiny", "llama", None, SENTENCE_ENDS, heads)
        return specialize(subject, config, policy)

    return make


@pytest.fixture(scope="session")
def call() -> Callable[..., dict[str, Tensor]]:
    """`call(program, **inputs)` gives the outputs by name."""

    @torch.no_grad()
    def run(program: Program, **given: Tensor) -> dict[str, Tensor]:
        inputs = [given[name] for name in program.input_names]
        outputs = program.exported.module(check_guards=False)(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return dict(zip(program.output_names, outputs, strict=True))

    return run
