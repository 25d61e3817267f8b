"""The same questions for the eager model: the full cache is the model, presses keep as told."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import lcc.runtime
from lcc.errors import ConfigError, LccError
from lcc.measure.evaluate.asking import SessionAsker
from lcc.measure.evaluate.eager import EagerModel, new_cache
from lcc.measure.evaluate.grid import Subject
from lcc.measure.evaluate.peers import PRESSES, PeerAsker, check_presses, open_peer
from lcc.measure.evaluate.sample import Sample
from lcc.sources.models import load_model

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


@pytest.fixture
def model(tiny_folder: Path) -> EagerModel:
    return EagerModel(load_model(tiny_folder))


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("setting", ["query-agnostic", "query-aware"])
def test_full_cache_answers_as_an_artifact_that_keeps_all(
    model: EagerModel, tiny_artifact: Path, chat: bool, setting: Any
) -> None:
    sample = short(1)
    session = lcc.runtime.open(tiny_artifact)
    theirs = SessionAsker(session).ask(sample, setting, chat=chat)
    mine = PeerAsker(model, None, None).ask(sample, setting, chat=chat)
    assert mine["answer"]
    assert session.stats().cycles == 0, "or they need not agree"
    assert mine["answer"] == theirs["answer"]
    assert mine["tokens"] == theirs["tokens"]


def short(times: int) -> Sample:
    return dataclasses.replace(SHORT, context="The key is 7. " * times, max_new_tokens=4)


def test_perplexity_is_the_models(model: EagerModel) -> None:
    ids = list(np.random.default_rng(1).integers(0, 256, 200))
    with torch.no_grad():
        logits = model.module(torch.tensor([ids])).logits[0]
    wanted = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    line = PeerAsker(model, None, None).perplexity([int(i) for i in ids])
    assert line["score"] == pytest.approx(float(wanted.mean()), rel=1e-4)
    (end, first), *_, (last_end, last) = line["by_position"]
    assert first == pytest.approx(float(wanted[: end - 1].mean()), rel=1e-4)
    before = line["by_position"][-2][0]
    assert last == pytest.approx(float(wanted[before - 1 :].mean()), rel=1e-4)
    assert last_end == 200


def test_perplexity_is_of_a_text_that_begins_as_any_other(
    model: EagerModel, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the special token, where the model has one; its own nats do not count."""
    ids = [int(i) for i in np.random.default_rng(1).integers(0, 256, 60)]
    session = lcc.runtime.open(tiny_artifact)
    assert not session.manifest.text.prefix
    full, artifact = PeerAsker(model, None, None), SessionAsker(session)
    without = [asker.perplexity(ids) for asker in (full, artifact)]
    monkeypatch.setattr(model.tokenizer, "prefix", [258, 259])
    text = msgspec.structs.replace(session.manifest.text, prefix=(258, 259))
    manifest = msgspec.structs.replace(session.manifest, text=text)
    monkeypatch.setattr(session, "manifest", manifest)
    with torch.no_grad():
        logits = model.module(torch.tensor([[258, 259, *ids]])).logits[0]
    wanted = torch.nn.functional.cross_entropy(
        logits[2:-1], torch.tensor(ids[1:]), reduction="none"
    )
    for asker, before in zip((full, artifact), without, strict=True):
        line = asker.perplexity(ids)
        assert line["score"] == pytest.approx(float(wanted.mean()), rel=1e-4)
        assert line["score"] != pytest.approx(before["score"], rel=1e-4)
        assert line["tokens"] == 60
        assert line["by_position"][-1][0] == 60
    monkeypatch.setattr("lcc.measure.evaluate.peers.END", 20)
    pressed = PeerAsker(model, Newest, 99)  # keeps all
    assert pressed.perplexity(ids)["score"] == pytest.approx(float(wanted[-20:].mean()), rel=1e-4)


def test_too_long(model: EagerModel) -> None:
    asker = PeerAsker(model, None, None)
    assert asker.window == 512
    with pytest.raises(LccError, match="made for 512 tokens, the sample takes 5"):
        asker.ask(short(35), "query-agnostic", chat=False)


def test_perplexity_behind_a_press_needs_something_to_press(
    model: EagerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcc.measure.evaluate.peers.END", 100)
    asker = PeerAsker(model, Newest, 9)
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
        @contextlib.contextmanager
        def hooked() -> Any:
            hooks = [
                layer.self_attn.register_forward_hook(self.forward_hook, with_kwargs=True)
                for layer in model.model.layers
            ]
            yield
            for each in hooks:
                each.remove()

        return hooked()

    def forward_hook(self, module: Any, _: Any, kwargs: dict, output: Any) -> Any:
        assert kwargs["cache_position"][0] == 0, "kvpress 0.5.5 reads it"
        assert kwargs["hidden_states"].shape[1] == len(kwargs["cache_position"])
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        count = int(layer.keys.shape[2] * (1 - self.ratio))
        layer.keys, layer.values = layer.keys[:, :, -count:], layer.values[:, :, -count:]
        return output


class Oldest(Newest):
    """The same, the oldest."""

    def forward_hook(self, module: Any, _: Any, kwargs: dict, output: Any) -> Any:
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        count = int(layer.keys.shape[2] * (1 - self.ratio))
        layer.keys, layer.values = layer.keys[:, :, :count], layer.values[:, :, :count]
        return output


IDS = [int(i) for i in np.arange(300) % 90 + 30]


def hooked_cache(model: EagerModel, press: Any, kept: int) -> Any:
    """As kvpress is meant to be used: the press at work while the model reads."""
    cache = new_cache()
    with torch.no_grad(), press(compression_ratio=1 - (kept + 0.5) / len(IDS))(model.module):
        model.module.model(
            input_ids=torch.tensor([IDS]),
            past_key_values=cache,
            use_cache=True,
            cache_position=torch.arange(len(IDS)),
        )
    return cache


def assert_same_cache(ours: Any, theirs: Any) -> None:
    assert len(ours.layers) == len(theirs.layers) == 2
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("kept", [7, 50, 99, 300])
def test_kept_entries_are_counted(model: EagerModel, kept: int) -> None:
    for tokens in (100, 300):
        cache, _ = PeerAsker(model, Newest, kept)._read([1] * tokens)
        assert cache.get_seq_length() == min(kept, tokens)


def test_one_reading_serves_all(model: EagerModel) -> None:
    """Presses choose from it one after the other as if each had read the text itself."""
    read = 0

    def count(*_: Any) -> None:
        nonlocal read
        read += 1

    model.module.model.embed_tokens.register_forward_hook(count)
    for press, kept in ((Newest, 50), (Oldest, 50), (Newest, 9), (Oldest, 299), (Newest, 50)):
        cache, seconds = PeerAsker(model, press, kept)._read(list(IDS))
        assert read == 1
        read = 0
        assert_same_cache(cache, hooked_cache(model, press, kept))
        assert read == 1
        read = 1
        assert seconds > model.read(IDS).seconds > 0, "each is told what it takes alone"
        model.generate([1], 300, cache, 2)
    assert read == 1
    whole, _ = PeerAsker(model, None, None)._read(IDS)
    assert whole.get_seq_length() == 300
    assert [*model.generate([65], 300, whole, 3)]
    assert whole.get_seq_length() > 300
    again, _ = PeerAsker(model, None, None)._read(IDS)
    assert again.get_seq_length() == 300, "an answer leaves what was read as it was"
    assert read > 1
    read = 0
    PeerAsker(model, Newest, 9)._read(IDS[:-1])
    assert read == 1, "another text"


def test_layers_that_kvpress_does_not_find(model: EagerModel) -> None:
    reading = dataclasses.replace(model.read(IDS), calls=[])
    with pytest.raises(
        LccError, match=r"2 modules layers\[i\].self_attn, got 0; leave --press out"
    ):
        model.pressed(reading, Newest, 9)


def test_a_press_changes_the_answer_and_knows_places(model: EagerModel) -> None:
    """One by one needs no mask: the question as a whole must see the same."""
    asker, ids = PeerAsker(model, Newest, 40), [int(i) for i in np.arange(120) % 90 + 30]
    whole = [*model.generate(ids[:20], 120, asker._read(ids)[0], 5)]
    cache, _ = asker._read(ids)
    with torch.no_grad():
        for place, token in enumerate(ids[:19]):
            model.module(
                input_ids=torch.tensor([[token]]),
                past_key_values=cache,
                position_ids=torch.tensor([[120 + place]]),
            )
    assert [*model.generate(ids[19:20], 139, cache, 5)] == whole


def test_an_answer_ends_when_nothing_can_change_its_score(model: EagerModel) -> None:
    asker = PeerAsker(model, None, None)
    whole = asker.ask(short(1), "query-agnostic", chat=False)["answer"]
    assert len(whole) == 4
    wanted = dataclasses.replace(short(1), answers=(whole[1],))
    line = asker.ask(wanted, "query-agnostic", chat=False)
    assert (line["answer"], line["score"]) == (whole[:2], 1)
    first_line = dataclasses.replace(wanted, metric="f1")
    assert asker.ask(first_line, "query-agnostic", chat=False)["answer"] == whole


@pytest.mark.parametrize("press", PRESSES)
def test_kvpress(model: EagerModel, press: str) -> None:
    pytest.importorskip("kvpress", reason="see lcc.measure.evaluate.peers.INSTALL")
    subject = Subject(kind="press", source="tiny", policy=press, budget=90)
    asker = open_peer(subject, model)
    assert asker._press is not None
    cache, _ = asker._read(list(IDS))
    assert cache.get_seq_length() == 90
    if press != "random":
        assert_same_cache(cache, hooked_cache(model, asker._press, 90))
    for setting in ("query-agnostic", "query-aware"):
        assert asker.ask(short(20), setting, chat=False)["score"] in (0, 1)  # type: ignore[arg-type]


def test_query_aware_presses_see_the_question_twice(model: EagerModel) -> None:
    asker = PeerAsker(model, Newest, 9)
    read: list[str] = []
    asker._read = lambda ids: (read.append(bytes(ids).decode()), 1.0)  # type: ignore[assignment,func-returns-value]
    model.generate = lambda ids, *_: read.append(bytes(ids).decode()) or []  # type: ignore[assignment,func-returns-value]
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
    model.tokenizer.prefix = [62]  # what begins a text
    asker.ask(SHORT, "query-agnostic", chat=False)
    assert read == [">" + SHORT.context, f"\n{question} The key is"]
