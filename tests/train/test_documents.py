"""Sequences are what a recipe says: whole or packed, what is learned, the same after a stop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcc.errors import ConfigError
from lcc.sources.models import load_model
from lcc.train import tokens
from lcc.train.documents import IGNORED, Mix, Sequence, make_mix
from lcc.train.recipe import Recipe, Source, Stage

LENGTH = 32


def spell(document: str) -> tuple[list[int], list[bool]]:
    """Bytes; capitals are not learned."""
    return list(document.encode()), [not letter.isupper() for letter in document]


def mix(*sources: Source, steps: int = 3, count: int = 2, seed: int = 0, **options: Any) -> Mix:
    stage = Stage(
        name="s", length=LENGTH, steps=steps, batch_tokens=count * LENGTH, learning_rate=1.0,
        sources=sources,
    )  # fmt: skip
    recipe = Recipe(stages=(stage,), **options)
    return make_mix(recipe, stage, {"text": spell, "chat": spell}, seed=seed)


def lines(path: Path, texts: list[str], column: str = "text") -> str:
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts))
    return str(path)


def decode(sequence: Sequence) -> list[str]:
    parts = np.split(sequence.ids, np.cumsum(sequence.lengths)[:-1])
    return [bytes(part.tolist()).decode() for part in parts]


def all_of(made: Mix) -> list[Sequence]:
    return [each for batch in made.batches(0) for each in batch]


def test_packed_texts_go_on_in_the_next_sequence(tmp_path: Path) -> None:
    place = lines(tmp_path / "a.jsonl", [letter * 20 for letter in "abcdefgh"])
    sequences = all_of(mix(Source(name="a", share=1.0, place=place), steps=5, count=1))
    assert all(sum(each.lengths) == LENGTH for each in sequences)
    text = "".join("".join(decode(each)) for each in sequences)
    assert len(text) == 160
    assert sorted(text[i : i + 20] for i in range(0, 160, 20)) == [c * 20 for c in "abcdefgh"]
    assert [len(part) for part in decode(sequences[1])] == [8, 20, 4]


def test_whole_texts_are_cut_into_pieces_and_short_ones_left_out(tmp_path: Path) -> None:
    place = lines(tmp_path / "a.jsonl", ["x" * 31, "y" * 70])
    sequences = all_of(mix(Source(name="a", share=1.0, documents="whole", place=place)))
    assert {text for each in sequences for text in decode(each)} == {"y" * 32}
    halves = all_of(mix(Source(name="a", share=1.0, documents="whole", place=place, length=16)))
    assert all(each.lengths == (16, 16) for each in halves)


def test_a_chat_that_is_cut_ends_there_and_only_answers_are_learned(tmp_path: Path) -> None:
    place = lines(tmp_path / "a.jsonl", ["QQQaaaaQQQaaaaa"] * 3)
    sequences = all_of(mix(Source(name="a", share=1.0, documents="chat", place=place)))
    for each in sequences:
        assert decode(each) == ["QQQaaaaQQQaaaaa", "QQQaaaaQQQaaaaa", "QQ"]
        learned = "".join("a" if label != IGNORED else "." for label in each.labels)
        assert learned == "..aaaa...aaaaa." * 2 + ".."


@pytest.mark.parametrize("masks", [True, False])
def test_labels_are_the_next_tokens(masks: bool, tmp_path: Path) -> None:
    place = lines(tmp_path / "a.jsonl", ["abcdefghij"] * 4)
    options = {"document_masks": masks, "first_label": not masks}
    (each,) = all_of(mix(Source(name="a", share=1.0, place=place), steps=1, count=1, **options))
    assert each.lengths == ((10, 10, 10, 2) if masks else (32,))
    for i, label in enumerate(each.labels):
        last = i == 31 or (masks and i % 10 == 9)
        assert label == (IGNORED if last else each.ids[i + 1])


def test_shares_are_kept(tmp_path: Path) -> None:
    a, b = (lines(tmp_path / f"{c}.jsonl", [c * 50] * 3) for c in "ab")
    sources = Source(name="a", share=0.7, place=a), Source(name="b", share=0.3, place=b)
    sequences = all_of(mix(*sources, steps=10))
    assert sum(each.ids[0] == ord("a") for each in sequences) == 14


def test_lengths_of_texts_are_kept(tmp_path: Path) -> None:
    place = lines(tmp_path / "a.jsonl", ["a" * 10, "b" * 20, "c" * 30])
    source = Source(name="a", share=1.0, place=place, shortest=15, longest=25)
    assert {text[0] for each in all_of(mix(source)) for text in decode(each)} == {"b"}
    with pytest.raises(ConfigError, match=r"none of its 3 texts has 40 tokens or more"):
        all_of(mix(Source(name="a", share=1.0, place=place, shortest=40)))


def test_the_costly_go_first(tmp_path: Path) -> None:
    """By the sum of squared lengths: a text as long as two costs twice as much."""
    a, b = lines(tmp_path / "a.jsonl", ["a" * 8]), lines(tmp_path / "b.jsonl", ["b" * 64])
    sources = Source(name="a", share=0.5, place=a), Source(name="b", share=0.5, place=b)
    for batch in mix(*sources, count=4).batches(0):
        assert [decode(each)[0][0] for each in batch] == ["b", "b", "a", "a"]
    unsorted = next(mix(*sources, count=4, sort_by_cost=False).batches(0))
    assert [decode(each)[0][0] for each in unsorted] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("documents", ["packed", "whole", "chat"])
def test_a_mix_goes_on_where_it_stood(documents: Any, tmp_path: Path) -> None:
    texts = ["".join(chr(97 + (i * j) % 26) for j in range(20 + 7 * i)) for i in range(9)]
    place = lines(tmp_path / "a.jsonl", texts)
    source = Source(name="a", share=1.0, place=place, documents=documents)
    straight = mix(source, steps=12)
    wanted, states = [], []
    for batch in straight.batches(0):
        wanted.append([each.ids.tolist() for each in batch])
        states.append(json.loads(json.dumps(straight.state())))
    for stop in (1, 4, 11):
        later = mix(source, steps=12)
        later.restore(states[stop - 1])
        got = [[each.ids.tolist() for each in batch] for batch in later.batches(stop)]
        assert got == wanted[stop:]


def test_texts_come_in_another_order_each_turn(tmp_path: Path) -> None:
    place = lines(tmp_path / "a.jsonl", [c * 32 for c in "abcdefgh"])
    order = "".join(decode(each)[0][0] for each in all_of(
        mix(Source(name="a", share=1.0, documents="whole", place=place), steps=8)
    ))  # fmt: skip
    assert sorted(order[:8]) == sorted(order[8:]) == list("abcdefgh")
    assert order[:8] != order[8:]


def test_sequences_without_an_answer_are_left_out(tmp_path: Path) -> None:
    """A question that fills the sequence leaves nothing to learn."""
    place = lines(tmp_path / "a.jsonl", ["Q" * 40 + "aaa", "QQaaa" * 7])
    source = Source(name="a", share=1.0, documents="chat", place=place)
    for each in all_of(mix(source)):
        assert (each.labels != IGNORED).any()
    place = lines(tmp_path / "b.jsonl", ["Q" * 40 + "aaa"] * 3)
    source = Source(name="b", share=1.0, documents="chat", place=place)
    with pytest.raises(ConfigError, match="nothing to learn; are all answers behind the first 32"):
        all_of(mix(source))


def test_a_mix_does_not_go_on_with_other_texts(tmp_path: Path) -> None:
    source = Source(name="a", share=1.0, place=lines(tmp_path / "a.jsonl", ["a" * 40] * 3))
    state = mix(source).state()
    more = Source(name="a", share=1.0, place=lines(tmp_path / "b.jsonl", ["a" * 40] * 4))
    with pytest.raises(ConfigError, match="has 4 texts, and had 3"):
        mix(more).restore(state)


def test_another_seed_is_another_order(tmp_path: Path) -> None:
    place = lines(tmp_path / "a.jsonl", [c * 32 for c in "abcdefgh"])
    source = Source(name="a", share=1.0, documents="whole", place=place)
    orders = [
        [decode(each)[0][0] for each in all_of(mix(source, steps=4, seed=seed))] for seed in (0, 1)
    ]
    assert orders[0] != orders[1]


def test_folders_of_several_kinds_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    lines(folder / "a.jsonl", ["a" * 32])
    (folder / "b.txt").write_text("b" * 31 + "\n")
    (folder / "c.md").write_text("c" * 16 + "\n\n" + "c" * 14)
    (folder / "d.csv").write_text("d" * 32)
    source = Source(name="a", share=1.0, documents="whole", place=str(folder))
    found = {text for each in all_of(mix(source)) for text in decode(each)}
    assert found == {"a" * 32, "b" * 31 + "\n", "c" * 16 + "\n\n" + "c" * 14}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    def wrong(message: str, place: str | None, **options: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            mix(Source(name="a", share=1.0, place=place, **options))

    wrong("stage s: a has no place; say --source a=PLACE", None)
    wrong("no such file or folder", str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    wrong(r"has no \.jsonl, \.parquet", str(tmp_path / "empty"))
    place = lines(tmp_path / "a.jsonl", ["text"], column="body")
    wrong("has no column 'text'; it has body", place)
    assert mix(Source(name="a", share=1.0, place=place, column="body")).streams
    (tmp_path / "b.jsonl").write_text('{"text": 1}\n{"text"')
    wrong("source a at .* cannot be read", str(tmp_path / "b.jsonl"))


CHAT = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


def test_chats_are_written_by_the_models_template(tiny_folder: Path) -> None:
    stage = Stage(
        name="s", length=8, steps=1, batch_tokens=8, learning_rate=1.0,
        sources=(Source(name="a", share=1.0),),
    )  # fmt: skip
    loaded = load_model(tiny_folder)
    made = tokens.encoders(loaded, Recipe(stages=(stage,), boundary="bos"))
    ids, learned = made["chat"](CHAT)
    answers = [i for i, is_answer in zip(ids, learned, strict=True) if is_answer]
    end = [258, ord("\n")]
    assert answers == [*b"4", *end, *b"Yes.", *end]
    assert ids[:6] == [257, *b"user\n"]
    assert made["text"](None) == ([], [])
    assert made["text"]("ab") == ([257, 97, 98], [True] * 3)
    for wrong in ("text", [], [{"content": "x"}]):
        with pytest.raises(ConfigError, match="a chat is"):
            made["chat"](wrong)


def test_templates_that_change_what_they_wrote_are_refused() -> None:
    def forgetful(messages: list[Any], generation_prompt: bool) -> str:
        return f"{len(messages)}:" + "".join(each["content"] for each in messages)

    with pytest.raises(ConfigError, match="writes message 1 differently"):
        tokens.answers(forgetful, CHAT)
