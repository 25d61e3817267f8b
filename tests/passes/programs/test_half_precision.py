"""Programs in half precision in eager PyTorch, against the same in float32."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lcc.capture.export import capture
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import PassError
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.passes import default_passes, pipeline
from lcc.passes.policies import make_policy
from lcc.passes.programs.base import run_program_passes
from lcc.passes.programs.half_precision import HalfPrecision, half
from lcc.passes.programs.split import split_programs
from lcc.passes.specialize import Specialized
from lcc.testing.tiny import random_heads, tiny_model

CACHE = CacheConfig(
    capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4, positions="absolute"
)
Call = Callable[..., dict[str, Tensor]]


def step_of(model: nn.Module, *, with_heads: bool = False) -> Program:
    policy = make_policy(PolicyConfig(name="locret" if with_heads else "knorm"))
    heads = random_heads(model) if with_heads else None
    graph, _ = pipeline.run(capture(model), default_passes(CACHE, policy, heads=heads))
    return split_programs(graph, chunk_size=16, capacity=96)[0]


def both(call: Call, exact: Program, narrow: Program, **given: Tensor) -> list[dict[str, Tensor]]:
    """What the two give for the same inputs; keys and values of `given` are float16, exactly."""
    results = []
    for program in (exact, narrow):
        inputs = {
            spec.name: given[spec.name].to(getattr(torch, spec.dtype)) for spec in program.inputs
        }
        results.append(call(program, **inputs))
    return results


def step_inputs(program: Program, first: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    given = {
        "tokens": torch.randint(5, 250, (1, 16), generator=draw),
        "positions": torch.arange(first, first + 16)[None],
        "used": torch.tensor([20], dtype=torch.int32),
    }
    for spec in program.with_role(Role.KEY, Role.VALUE):
        shape = [96 if size == "slots" else int(size) for size in spec.shape]
        given[spec.name] = torch.randn(shape, generator=draw).half()
    return given


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "phi3", "qwen3"])
def test_a_step_is_the_program(architecture: str, call: Call) -> None:
    """At positions that a float16 does not tell apart, too; scores of heads stay as they are."""
    exact = step_of(tiny_model(architecture), with_heads=True)
    (narrow,) = run_program_passes([exact], [HalfPrecision()])
    assert {p.dtype for p in narrow.exported.parameters()} == {torch.float16}
    first = 300 if architecture == "gpt2" else 7001  # it has a table of 512 positions
    wanted, got = both(call, exact, narrow, **step_inputs(exact, first))
    for spec in narrow.outputs:
        value, exactly = got[spec.name], wanted[spec.name]
        is_cache = spec.role in (Role.KEY, Role.VALUE)
        assert spec.dtype == ("float16" if is_cache else "float32")
        assert value.dtype == getattr(torch, spec.dtype)
        if is_cache:
            value, exactly = value[:, :, :36], exactly[:, :, :36]
        assert (value - exactly).abs().max() < 5e-3 * max(1.0, float(exactly.abs().max()))
    assert Role.ENTRY_SCORE in {spec.role for spec in narrow.outputs}
    assert [spec.shape for spec in narrow.inputs] == [spec.shape for spec in exact.inputs]


def test_the_sum_of_the_layers_may_be_large(call: Call) -> None:
    """Squares of numbers beyond 256, and sums beyond 65504, are infinite in float16."""
    model = copy.deepcopy(tiny_model("llama", tie_word_embeddings=False))
    embedding, down = model.model.embed_tokens.weight, model.model.layers[0].mlp.down_proj.weight
    given = step_inputs(step_of(model), 0)
    embedding.data *= 6e4 / embedding[given["tokens"]].abs().max()
    down.data *= 3e4
    exact = step_of(model)
    with torch.no_grad():
        whole = model.model(given["tokens"], output_hidden_states=True).hidden_states[1]
    assert whole.abs().max() > 66_000
    wanted, got = both(call, exact, half(exact), **given)
    torch.testing.assert_close(got["hidden"], wanted["hidden"], atol=2e-2, rtol=0)


@pytest.mark.parametrize("policy", ["infinipot", "keydiff", "knorm", "snapkv"])
def test_selection_computes_in_float32(
    policy: str, specialized: Callable[..., Specialized], call: Call
) -> None:
    """Of the same keys the very same entries are kept, and attention is the same."""
    exact = [
        program
        for program in specialized(policy).programs
        if program.names[0] in ("evict_0", "score_0")
    ]
    draw = torch.Generator().manual_seed(5)
    int32 = {"used": 90, "kept": 40, "protected": 4, "left": -1, "layer": 0, "seed": 0}
    given = {name: torch.tensor([x], dtype=torch.int32) for name, x in int32.items()}
    given |= {
        "key": torch.randn(1, 2, 96, 16, generator=draw).half(),
        "value": torch.randn(1, 2, 96, 16, generator=draw).half(),
        "token_position": torch.arange(96).expand(2, -1),
        "tokens_read": torch.tensor([200]),
        "queries": torch.randn(16, 4, 16, generator=draw),
        "start": torch.tensor([70], dtype=torch.int32),
        "known": torch.tensor([40], dtype=torch.int32),
        "new_slots": torch.arange(40),
        "attention": torch.rand(2, 96, generator=draw),
        "nll": torch.rand(96, generator=draw),
        "nll_kept": torch.rand(2, 96, generator=draw),
    }
    assert any("evict_0" in program.names for program in exact)
    for program in exact:
        wanted, got = both(call, program, half(program), **given)
        for spec in program.outputs:
            value, exactly = got[spec.name], wanted[spec.name]
            if spec.dtype == "int64":
                assert torch.equal(value, exactly)
                continue
            is_cache = spec.role in (Role.KEY, Role.VALUE)
            assert value.dtype == (torch.float16 if is_cache else torch.float32)
            limit = 1e-3 if is_cache else 1e-6  # of keys, what float16 rounds
            torch.testing.assert_close(value.float(), exactly, atol=limit, rtol=limit)


def test_the_promise_is_checked(specialized: Callable[..., Specialized]) -> None:
    step = specialized("knorm").programs[0]
    with pytest.raises(PassError, match="half_precision: step: key_0: float32"):
        HalfPrecision().ensures(step)
    HalfPrecision().ensures(half(step))
