"""The real model: logits and greedy tokens are those of transformers; the demo finds its key.

All that needs SmolLM2 is here, so that one process of the gate compiles it, once.
"""

import argparse
import copy
import dataclasses
import json
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from typer.testing import CliRunner

import lcc.runtime
from lcc.cli import app
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.demo import demo
from lcc.measure.check_golden import check_golden
from lcc.measure.evaluate.haystack import split_sentences
from lcc.measure.evaluate.tasks import TASKS
from lcc.sources.models import LoadedModel, load_model

LENGTHS = (1, 255, 256, 257, 1000)
CHUNK_SIZES = (256, 64, 7, 1)
NEW_TOKENS = 128

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("smollm2")


@pytest.fixture(scope="module")
def artifact(smollm2_cache: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LCC_CACHE_DIR", str(smollm2_cache))
        return demo.compile_demo("smollm2", CompileConfig(), lambda *_: None)[0]


@pytest.fixture(scope="module")
def ids(artifact: Path) -> list[int]:
    text = Path(argparse.__file__).read_text(encoding="utf-8")
    return lcc.runtime.open(artifact, verify="size").encode(text)[:1000]


@torch.no_grad()
def eager(model: LoadedModel, ids: list[int]) -> np.ndarray:
    return model.module(torch.tensor([ids])).logits[0].numpy()


def test_logits_of_any_length_in_any_chunks(
    model: LoadedModel, artifact: Path, ids: list[int]
) -> None:
    expected, worst = eager(model, ids), 0.0
    for chunk_size in CHUNK_SIZES:
        session = lcc.runtime.open(artifact, chunk_size=chunk_size, verify="size")
        for length in LENGTHS if chunk_size >= 64 else LENGTHS[:-1]:
            if chunk_size == max(CHUNK_SIZES):  # in smaller chunks, each text goes on in the next
                session.reset()
            session.feed(ids[session.tokens : length])
            error = np.abs(session._executor.logits() - expected[length - 1]).max()
            worst = float(np.maximum(worst, error))  # max() would drop a NaN
    print(f"largest error {worst:.2e}")
    assert worst < 1e-4


def test_it_reproduces_what_the_reference_computed(artifact: Path) -> None:
    report = check_golden(lcc.runtime.load(artifact, verify="size"), artifact)
    assert report.exact
    assert [row.what for row in report.rows if not row.ok] == []
    assert any("cycle 1, kept" in row.what for row in report.rows)  # two cycles at least


def test_greedy_tokens_are_the_models_own(
    model: LoadedModel, artifact: Path, ids: list[int]
) -> None:
    session, prompt = lcc.runtime.open(artifact, verify="size"), ids[:300]
    written = list(session.generate_ids(prompt, max_new_tokens=NEW_TOKENS, eos=[]))
    assert len(written) == NEW_TOKENS
    # Each must be the model's choice after all those before it: greedy decoding, in one forward.
    chosen = eager(model, [*prompt, *written[:-1]])[len(prompt) - 1 :].argmax(-1)
    assert written == chosen.tolist()


def test_tvm_is_the_model_and_keeps_and_writes_what_onnxruntime_does(
    model: LoadedModel, ids: list[int], tmp_path: Path
) -> None:
    """Its first layers, for a whole compilation takes a minute: logits, then several cycles."""
    short = copy.deepcopy(model.module)
    short.config.num_hidden_layers = 6
    short.model.layers = short.model.layers[:6]
    loaded, sessions = dataclasses.replace(model, module=short), []
    for target in ("tvm:cpu", "onnxruntime:cpu"):
        cache = CacheConfig(capacity=576, budget=256)
        config = CompileConfig(target=target, cache=cache, policy=PolicyConfig(name="infinipot"))
        compile_model(loaded, tmp_path / "m.lcc", config)
        sessions.append(lcc.runtime.open(tmp_path / "m.lcc", verify="size", allow_native=True))
    with torch.no_grad():
        expected = short(torch.tensor([ids[:512]])).logits[0].numpy()
    own = sessions[0]
    for length in (1, 256, 511, 512):
        own.feed(ids[own.tokens : length], prefix=False)
        assert np.abs(own._executor.logits() - expected[length - 1]).max() < 1e-4
    own.reset()
    written = []
    for session in sessions:
        session.feed(ids)
        written.append(list(session.generate_ids(max_new_tokens=NEW_TOKENS, eos=[])))
        assert len(session.cycles) >= 3
    kept = [np.stack([s.kept_tokens(i) for i in range(6)]) for s in sessions]
    np.testing.assert_array_equal(*kept)
    assert written[0] == written[1]


def test_it_is_read_as_it_was_trained(model: LoadedModel) -> None:
    assert (model.architecture, model.trained_window) == ("llama", 8192)
    assert model.module.lm_head.weight is model.module.model.embed_tokens.weight
    # The end of a text, and of a turn.
    assert json.loads(model.files["generation_config.json"])["eos_token_id"] == [0, 2]
    tokenizer = Tokenizer.from_str(model.files["tokenizer.json"].decode())
    # Digits are split before spaces are joined: "  42" is two spaces, then two digits.
    assert tokenizer.encode("a  42").tokens == ["a", "ĠĠ", "4", "2"]
    assert tokenizer.encode("<|im_end|>").ids == [2]
    question = "The capital of France is"
    ids = torch.tensor([tokenizer.encode(question).ids])
    with torch.no_grad():
        best = model.module(ids).logits[0, -1].argmax()
    assert tokenizer.decode([int(best)]) == " Paris"


def test_tasks_keep_within_their_length(model: LoadedModel) -> None:
    tokenizer = Tokenizer.from_str(model.files["tokenizer.json"].decode())
    sentences = split_sentences(" ".join(topics.values()))
    for length in (1024, 4096, 16384):
        for name, task in TASKS.items():
            sample = task.make(lambda text: len(tokenizer.encode(text)), length, 50, 1, sentences)
            whole = len(tokenizer.encode(sample.context + sample.asked)) + sample.max_new_tokens
            assert length - 400 < whole <= length + 1, name  # a long sentence; one seam of tokens


def test_demo(smollm2_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCC_CACHE_DIR", str(smollm2_cache))
    result = CliRunner().invoke(app, ["demo", "--tokens", "6144", "--depth", "30"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "\n          found\n" in result.stdout
    assert "torch, transformers, onnx: none" in result.stdout
