"""Text behind text has the ids of both tokenized at once, whatever a tokenizer does to ends."""

import random

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from lcc.runtime.text.library_tokenizer import LibraryTokenizer
from lcc.runtime.text.seam import behind, common, following
from lcc.runtime.text.tokenizer import Tokenizer as Ours

KINDS = ["plain", "metaspace first", "metaspace always", "prepended", "rstrip", "words", "bytes"]
MARK = "\u2581"


def library(kind: str) -> Tokenizer:
    letters = [chr(code) for code in range(33, 127)] + [MARK, "\n"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {each: i + 3 for i, each in enumerate(letters)}
    merges = [(MARK, "H"), (MARK, "["), (MARK, "U"), ("H", "i"), ("\n", "\n"), ("l", "o")]
    vocab |= {a + b: len(vocab) + i for i, (a, b) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True))
    marked = normalizers.Replace(" ", MARK)
    if kind in ("metaspace first", "metaspace always"):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=MARK, prepend_scheme=kind.split()[1], split=False
        )
    elif kind == "prepended":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), marked])
    elif kind == "words":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, split=True)
    else:
        tokenizer.normalizer = marked
    tokenizer.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.Fuse()])
    special = [AddedToken(each, normalized=False) for each in ("<unk>", "<s>")]
    end = AddedToken("</s>", normalized=False, rstrip=kind == "rstrip")
    tokenizer.add_special_tokens([*special, end])
    return tokenizer


def ours(kind: str, tmp_path) -> Ours:
    if kind == "bytes":
        from lcc.testing.tiny import tiny_tokenizer

        tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    else:
        library(kind).save(str(tmp_path / "tokenizer.json"))
    return Ours(tmp_path)


def some_text(draw: random.Random, size: int) -> str:
    parts = [
        "Hi",
        " ",
        "Hello",
        "\n",
        "\n\n",
        "</s>",
        "<s>",
        "[U",
        " Up",
        "lo",
        "x",
        "  ",
        "</s>\n",
    ]
    return "".join(draw.choices(parts, k=size))


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_give_the_ids_of_the_whole(kind: str, tmp_path) -> None:
    tokenizer, draw = ours(kind, tmp_path), random.Random(0)
    changed = 0
    for _ in range(300):
        pieces = [some_text(draw, draw.randint(1, 6)) for _ in range(3)]
        held, before = tokenizer.encode(pieces[0]), pieces[0]
        for piece in pieces[1:]:
            found = following(tokenizer, before, piece, held, rewindable=len(held))
            held = held[: len(held) - found.drop]
            held += [token for ids, _ in found.parts for token in ids]
            before += piece
        assert held == tokenizer.encode(before), pieces
        changed += held != [token for piece in pieces for token in tokenizer.encode(piece)]
    assert kind == "bytes" or changed > 20, "no seam mattered"


def test_a_book_behind_a_line(tmp_path) -> None:
    tokenizer = ours("metaspace first", tmp_path)
    book = "Hello Hi Up. " * 12_000  # more than a window
    found = following(tokenizer, "[U] Hi", book, tokenizer.encode("[U] Hi"), rewindable=99)
    parts = list(found.parts)
    assert len(parts) > 1
    assert [end for _, end in parts][-1] == len(book)
    ids = tokenizer.encode("[U] Hi")[: len(tokenizer.encode("[U] Hi")) - found.drop]
    assert [*ids, *(token for part, _ in parts for token in part)] == tokenizer.encode(
        "[U] Hi" + book
    )


def test_what_cannot_be_taken_back_stays(tmp_path) -> None:
    tokenizer = ours("plain", tmp_path)
    held = tokenizer.encode("H")
    assert following(tokenizer, "H", "i", held, rewindable=1).drop == 1
    for kept, rewindable in ((held, 0), ([5], 9)):  # a cycle has run; other tokens than the text's
        found = following(tokenizer, "H", "i", kept, rewindable=rewindable)
        assert found.drop == 0


def test_the_ids_behind_a_place(tmp_path) -> None:
    tokenizer = ours("rstrip", tmp_path)
    text = "Hello</s>\nHi"
    assert behind(tokenizer, text, 5) == tokenizer.encode("</s>\nHi")
    assert behind(tokenizer, text, len(text)) == []
    assert behind(tokenizer, text, len(text) - 1) is None  # inside of Hi
    long = "x" * 5_000 + "Hi"
    assert behind(tokenizer, long, 5_000) == tokenizer.encode("Hi")
    assert (common([1, 2, 3], [1, 2, 4]), common([1], [1, 2])) == (2, 1)


TEMPLATE = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
ASKING = (
    "<s>{% for m in messages %}{{ m.role[0] }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}a\n{% endif %}"
)


@pytest.fixture
def session_of(make_session, tmp_path):
    def make(kind: str, template: str = TEMPLATE):
        session = make_session(capacity=256, budget=200)
        session.tokenizer._codec = LibraryTokenizer(library(kind))
        session.tokenizer.config = {"chat_template": template}
        return session

    return make


def held(session) -> list[int]:
    return [*session._executor.since_cycle, *session._reader.pending]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytes"])
def test_what_is_fed_in_pieces(kind: str, session_of) -> None:
    session, tokenizer = session_of(kind), library(kind)
    before, book, question = "<s>[INST] ", "Hi Hi", "\n\nUp [/INST]"
    session.feed(before, prefix=False)
    session.feed(book, last=True)
    next(session.generate_ids(question, max_new_tokens=1))
    wanted = tokenizer.encode(before + book + question, add_special_tokens=False).ids
    assert session._executor.since_cycle == wanted
    session.feed([5, 6])  # ids stand as they are, and what follows them is no beginning
    session.feed("Hi")
    assert held(session)[-1] == tokenizer.token_to_id("Hi")


@pytest.mark.parametrize("template", [TEMPLATE, ASKING], ids=["instructions", "asking"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytes"])
def test_turns_have_the_ids_of_the_conversation(kind: str, template: str, session_of) -> None:
    session, tokenizer = session_of(kind, template), library(kind)

    def answer(text: str) -> str:
        ids = iter([*tokenizer.encode(text, add_special_tokens=False).ids, 2])

        def logits() -> np.ndarray:
            row = np.zeros(260, np.float32)
            row[next(ids)] = 9
            return row

        session._executor.logits = logits
        return "".join(session.chat(talk, eos=[2]))

    talk = [{"role": "user", "content": "Hi"}]
    for said, asked in (("Hello", "Bye"), ("Ho lo", "Up"), ("x", "Hi")):
        talk += [{"role": "assistant", "content": answer(said)}, {"role": "user", "content": asked}]
    session._executor.logits = lambda: np.eye(260, dtype=np.float32)[5]
    next(session.chat(talk, eos=[2]), None)
    whole = session.model.template().render(talk)
    wanted = tokenizer.encode(whole, add_special_tokens=False).ids
    assert session._executor.since_cycle[: len(wanted)] == wanted


def test_a_message_interrupted_behind_an_answer_that_was_dropped(session_of, monkeypatch) -> None:
    session, tokenizer = session_of("metaspace first"), library("metaspace first")
    ids = iter([*tokenizer.encode("Hello", add_special_tokens=False).ids, 2])
    session._executor.logits = lambda: np.eye(260, dtype=np.float32)[next(ids)]
    talk = [{"role": "user", "content": "Hi"}]
    talk += [{"role": "assistant", "content": "".join(session.chat(talk, eos=[2]))}]
    talk += [{"role": "user", "content": "Bye"}]
    read, calls = session._executor.read, []

    def interrupted(tokens: list[int]) -> None:
        calls.append(tokens)
        if len(calls) == 2:
            raise KeyboardInterrupt
        read(tokens)

    monkeypatch.setattr(session._executor, "read", interrupted)
    session._executor.logits = lambda: np.eye(260, dtype=np.float32)[5]
    with pytest.raises(KeyboardInterrupt):
        next(session.chat(talk, eos=[2]))
    next(session.chat(talk, eos=[2]))
    wanted = tokenizer.encode(session.model.template().render(talk), add_special_tokens=False).ids
    assert session._executor.since_cycle[: len(wanted)] == wanted
