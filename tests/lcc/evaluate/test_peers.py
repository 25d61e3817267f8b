"""The same questions for the eager model: the full cache is the model, presses keep as told."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lcc.runtime
from lcc.errors import ConfigError, LccError
from lcc.evaluate.asking import SessionAsker
from lcc.evaluate.grid import Subject
from lcc.evaluate.peers import PRESSES, PeerAsker, check_presses, open_peer
from lcc.evaluate.sample import Sample
from lcc.models import LoadedModel, load_model

SHORT = Sample(
    context="The key is 7. " * 6,
    question="What is the key?",
    task="What key?",
    answer_prefix="The key is",
    answers=("7",),
    depth=50,
    tokens=84,
    max_new_tokens=9,
)


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> LoadedModel:
    return load_model(tiny_folder)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("setting", ["query-agnostic", "query-aware"])
def test_full_cache_answers_as_an_artifact_that_keeps_all(
    loaded: LoadedModel, tiny_artifact: Path, chat: bool, setting: Any
) -> None:
    sample = short(1)
    session = lcc.runtime.load(tiny_artifact)
    theirs = SessionAsker(session).ask(sample, setting, chat=chat)
    mine = PeerAsker(loaded, None, None).ask(sample, setting, chat=chat)
    assert mine["answer"]
    assert session.stats().cycles == 0, "or they need not agree"
    assert mine["answer"] == theirs["answer"]
    assert mine["tokens"] == theirs["tokens"]


def short(times: int) -> Sample:
    return dataclasses.replace(SHORT, context="The key is 7. " * times, max_new_tokens=4)


def test_perplexity_is_the_models(loaded: LoadedModel) -> None:
    ids = list(np.random.default_rng(1).integers(0, 256, 200))
    with torch.no_grad():
        logits = loaded.module(torch.tensor([ids])).logits[0]
    wanted = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    line = PeerAsker(loaded, None, None).perplexity([int(i) for i in ids])
    assert line["score"] == pytest.approx(float(wanted.mean()), rel=1e-4)
    (end, first), *_, (last_end, last) = line["by_position"]
    assert first == pytest.approx(float(wanted[: end - 1].mean()), rel=1e-4)
    before = line["by_position"][-2][0]
    assert last == pytest.approx(float(wanted[before - 1 :].mean()), rel=1e-4)
    assert last_end == 200


def test_too_long(loaded: LoadedModel) -> None:
    asker = PeerAsker(loaded, None, None)
    assert asker.window == 512
    with pytest.raises(LccError, match="made for 512 tokens, the sample takes 5"):
        asker.ask(short(35), "query-agnostic", chat=False)


def test_perplexity_behind_a_press_needs_something_to_press(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcc.evaluate.peers.END", 100)
    asker = PeerAsker(loaded, Newest, 9)
    with pytest.raises(LccError, match="--tasks perplexity: wanted 102 tokens or more, got 101"):
        asker.perplexity([1] * 101)
    assert asker.perplexity([1] * 102)["tokens"] == 102


def test_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    check_presses([])
    with pytest.raises(ConfigError, match="no press 'ada'; there are: snapkv"):
        check_presses(["ada"])
    monkeypatch.setitem(__import__("sys").modules, "kvpress", None)
    with pytest.raises(LccError, match=r"pip install --no-deps kvpress==0\.5\.5 "):
        check_presses(["knorm"])


class Newest:
    """A press in the manner of kvpress: keeps what its ratio leaves, the newest."""

    def __init__(self, compression_ratio: float) -> None:
        self.ratio = compression_ratio

    def __call__(self, model: Any) -> Any:
        import contextlib

        @contextlib.contextmanager
        def hooked() -> Any:
            def hook(module: Any, _: Any, kwargs: dict, __: Any) -> None:
                assert kwargs["cache_position"][0] == 0, "kvpress 0.5.5 reads it"
                layer = kwargs["past_key_values"].layers[module.layer_idx]
                count = int(layer.keys.shape[2] * (1 - self.ratio))
                layer.keys, layer.values = layer.keys[:, :, -count:], layer.values[:, :, -count:]

            hooks = [
                layer.self_attn.register_forward_hook(hook, with_kwargs=True)
                for layer in model.model.layers
            ]
            yield
            for each in hooks:
                each.remove()

        return hooked()


@pytest.mark.parametrize("kept", [7, 50, 99, 300])
def test_kept_entries_are_counted(loaded: LoadedModel, kept: int) -> None:
    for tokens in (100, 300):
        cache = PeerAsker(loaded, Newest, kept)._read([1] * tokens)
        assert cache.get_seq_length() == min(kept, tokens)


def test_a_press_changes_the_answer_and_knows_places(loaded: LoadedModel) -> None:
    """One by one needs no mask: the question as a whole must see the same."""
    asker, ids = PeerAsker(loaded, Newest, 40), [int(i) for i in np.arange(120) % 90 + 30]
    whole = asker._generate(ids[:20], 120, asker._read(ids), 5)
    cache = asker._read(ids)
    with torch.no_grad():
        for place, token in enumerate(ids[:19]):
            asker.model(
                input_ids=torch.tensor([[token]]),
                past_key_values=cache,
                position_ids=torch.tensor([[120 + place]]),
            )
    assert asker._generate(ids[19:20], 139, cache, 5) == whole


@pytest.mark.parametrize("press", PRESSES)
def test_kvpress(loaded: LoadedModel, press: str) -> None:
    pytest.importorskip("kvpress", reason="see lcc.evaluate.peers.INSTALL")
    subject = Subject(kind="press", source="tiny", policy=press, budget=90)
    asker = open_peer(subject, loaded)
    assert asker._read([int(i) for i in np.arange(300) % 256]).get_seq_length() == 90
    for setting in ("query-agnostic", "query-aware"):
        assert asker.ask(short(20), setting, chat=False)["score"] in (0, 1)  # type: ignore[arg-type]


def test_query_aware_presses_see_the_question_twice(loaded: LoadedModel) -> None:
    asker = PeerAsker(loaded, Newest, 9)
    read: list[str] = []
    asker._read = lambda ids: read.append(bytes(ids).decode())  # type: ignore[assignment,func-returns-value]
    asker._generate = lambda ids, *_: read.append(bytes(ids).decode()) or []  # type: ignore[assignment,func-returns-value]
    asker.ask(SHORT, "query-aware", chat=False)
    question = SHORT.question
    assert read == [f"{question}\n{SHORT.context}\n{question}", " The key is"]
    read.clear()
    bare = dataclasses.replace(SHORT, answer_prefix="")
    asker.ask(bare, "query-aware", chat=False)
    assert read == [f"{question}\n{SHORT.context}\nWhat is the key", "?"], "read with the answer"
    read.clear()
    asker.ask(bare, "query-agnostic", chat=False)
    assert read == [SHORT.context, bare.asked]
    read.clear()
    asker.tokenizer.prefix = [62]  # what begins a text
    asker.ask(SHORT, "query-agnostic", chat=False)
    assert read == [">" + SHORT.context, f"\n{question} The key is"]
