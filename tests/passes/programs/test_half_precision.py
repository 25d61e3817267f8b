"""Programs in half precision in eager PyTorch, against the same in float32."""

import copy

import pytest
import torch

from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.ir.program import Program
from lcc.passes.programs.half_precision import half
from lcc.specialize import specialize
from lcc.testing.tiny import random_heads, tiny_model

CACHE = CacheConfig(
    capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4, positions="absolute"
)


def programs_of(model: torch.nn.Module, policy: str) -> list[Program]:
    heads = random_heads(model) if policy == "locret" else None
    config = CompileConfig(cache=CACHE, policy=PolicyConfig(name=policy))
    return specialize(capture(model), config, "tiny", "tiny", None, heads).programs


def both(exact: Program, narrow: Program, **given: torch.Tensor) -> list[dict]:
    """What the two give for the same inputs; keys and values of float16, exactly."""
    results = []
    for program in (exact, narrow):
        nodes = program.exported.graph.find_nodes(op="placeholder")[-len(program.inputs) :]
        inputs = {
            name: given[name].to(node.meta["val"].dtype)
            for name, node in zip(program.inputs, nodes, strict=True)
        }
        run = program.exported.module(check_guards=False)
        by_name = bool(program.exported.example_inputs[1])
        with torch.no_grad():
            out = run(**inputs) if by_name else run(*inputs.values())
        out = out if isinstance(out, tuple) else (out,)
        results.append(dict(zip(program.outputs, out, strict=True)))
    return results


def step_inputs(program: Program, first: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    given = {
        "tokens": torch.randint(5, 250, (1, 16), generator=draw),
        "positions": torch.arange(first, first + 16)[None],
        "used": torch.tensor([20], dtype=torch.int32),
    }
    nodes = program.exported.graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    for name, node in zip(program.inputs, nodes, strict=True):
        if name.startswith(("key_", "value_")):
            shape = (1, node.meta["val"].shape[1], 96, node.meta["val"].shape[3])
            given[name] = torch.randn(shape, generator=draw).half()
    return given


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "phi3", "qwen3"])
def test_a_step_is_the_program(architecture: str) -> None:
    """At positions that a float16 does not tell apart, too; scores of heads stay as they are."""
    exact = programs_of(tiny_model(architecture), "locret")[0]
    narrow = half(exact)
    assert {p.dtype for p in narrow.exported.parameters()} == {torch.float16}
    first = 300 if architecture == "gpt2" else 7001  # it has a table of 512 positions
    wanted, got = both(exact, narrow, **step_inputs(exact, first))
    assert set(got) == set(wanted)
    for name, value in got.items():
        is_cache = name.startswith(("key_", "value_"))
        assert value.dtype == (torch.float16 if is_cache else torch.float32), name
        rows = (value[:, :, :36], wanted[name][:, :, :36]) if is_cache else (value, wanted[name])
        scale = float(rows[1].abs().max())
        assert (rows[0] - rows[1]).abs().max() < 5e-3 * max(1.0, scale), name
    assert any(name.startswith("retaining_") for name in got)


def test_the_sum_of_the_layers_may_be_large() -> None:
    """Squares of numbers beyond 256, and sums beyond 65504, are infinite in float16."""
    model = copy.deepcopy(tiny_model("llama", tie_word_embeddings=False))
    embedding, down = model.model.embed_tokens.weight, model.model.layers[0].mlp.down_proj.weight
    exact = programs_of(model, "knorm")[0]
    given = step_inputs(exact, 0)
    embedding.data *= 6e4 / embedding[given["tokens"]].abs().max()
    down.data *= 3e4
    exact = programs_of(model, "knorm")[0]
    with torch.no_grad():
        whole = model.model(given["tokens"], output_hidden_states=True).hidden_states[1]
    assert whole.abs().max() > 66_000
    wanted, got = both(exact, half(exact), **given)
    torch.testing.assert_close(got["hidden"], wanted["hidden"], atol=2e-2, rtol=0)


@pytest.mark.parametrize("policy", ["infinipot", "keydiff", "knorm", "snapkv"])
def test_selection_computes_in_float32(policy: str) -> None:
    """Of the same keys the very same entries are kept, and attention is the same."""
    exact = programs_of(tiny_model("llama"), policy)[2:]
    draw = torch.Generator().manual_seed(5)
    shape = (1, 2, 96, 16)
    given = {
        "key": torch.randn(shape, generator=draw).half(),
        "value": torch.randn(shape, generator=draw).half(),
        "queries": torch.randn(4, 16, 16, generator=draw),
        "used": torch.tensor([90], dtype=torch.int32),
        "start": torch.tensor([70], dtype=torch.int32),
        "prefix": torch.tensor([4], dtype=torch.int32),
        "recent": torch.tensor([4], dtype=torch.int32),
        "new_slots": torch.arange(40),
    }
    for name in ("attention", "novelty"):
        given[name] = torch.rand(2, 96, generator=draw)
    assert {program.names[0] for program in exact} <= {"evict_0", "score_0"}
    for program in exact:
        wanted, got = both(program, half(program), **given)
        for name, value in got.items():
            if name == "kept":
                assert torch.equal(value, wanted[name])
                continue
            is_cache = name.startswith("kept_")
            assert value.dtype == (torch.float16 if is_cache else torch.float32)
            limit = 1e-3 if is_cache else 1e-6  # of keys, what float16 rounds
            torch.testing.assert_close(value.float(), wanted[name], atol=limit, rtol=limit)
