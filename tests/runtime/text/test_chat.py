import datetime

import pytest

from lcc.errors import ConfigError
from lcc.runtime.text.chat import ChatTemplate, check_messages
from lcc.runtime.text.conversation import Conversation
from lcc.testing.tiny import CHAT_TEMPLATE, END

HELLO = [{"role": "user", "content": "Hello"}]


def test_names_of_transformers():
    source = (
        "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
        "{{ strftime_now('%Y') | length }}"
        "{% for m in messages %}{% generation %}\n    {{ m.content }}\n{% endgeneration %}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    )
    template = ChatTemplate(source, {"bos_token": "<s>"})
    assert template.render(HELLO) == "<s>4    Hello\n"
    assert template.render(HELLO, tools=[{"é": "<"}]).startswith('<s>[{"é": "<"}]4')


def test_refusals():
    with pytest.raises(ConfigError, match="chat template: only two may talk"):
        ChatTemplate("{{ raise_exception('only two may talk') }}", {}).render(HELLO)
    with pytest.raises(ConfigError, match="chat template: "):
        ChatTemplate("{% for %}", {})
    with pytest.raises(ConfigError, match=r"chat template: .*unsafe"):
        ChatTemplate("{{ messages.__class__.__mro__ }}", {}).render(HELLO)
    with pytest.raises(ConfigError, match="chat template: "):
        ChatTemplate("{% set _ = messages.append(1) %}", {}).render(HELLO)
    for name in ("messages", "generation_prompt", "add_generation_prompt"):
        with pytest.raises(ConfigError, match=f"template_options has {name}, which chat"):
            ChatTemplate(CHAT_TEMPLATE, {}).render_turn(HELLO, {"tools": [], name: HELLO})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ 'abc'.index('z') }}", "ValueError: substring not found"),
        ("{{ '%(x)s' % {} }}", "KeyError: 'x'"),
        ("{{ 1 // 0 }}", "ZeroDivisionError: "),
        ("{{ [].pop() }}", "access to attribute"),
        ("{{ (0, 1)[5] + 1 }}", "no element 5|undefined"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "RecursionError: "),
        ("{{ messages | tojson(indent=[]) }}", "TypeError: "),
    ],
)
def test_code_of_a_template_that_fails_is_one_line(source, words):
    with pytest.raises(ConfigError, match=f"chat template: .*({words})") as caught:
        ChatTemplate(source, {}).render(HELLO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "messages",
    ["Hello", [], {"role": "user"}, [{"content": "x"}], ["Hello"], iter(HELLO)],
    ids=lambda messages: type(messages).__name__,
)
def test_what_is_no_conversation(messages):
    with pytest.raises(ConfigError, match="messages"):
        check_messages(messages)


def after(prompt, answer, eos):
    return Conversation.of("U:hi\n", prompt, 3).said(answer, eos, 9)


def test_what_is_new_in_a_conversation():
    talk = after("A:", " well ", "<e>")
    assert talk.unread("U:hi\nA: well <e>\nU:bye\nA:") == "\nU:bye\nA:"
    assert talk.unread("U:hi\nA:well<e>\nU:bye\nA:") == "\nU:bye\nA:"
    assert not talk.is_retold("U:hi\nA:well<e>\nU:bye\nA:")
    assert after("A:", "we", None).unread("U:hi\nA:we<e>\nU:") == "<e>\nU:"
    assert after("A:", "well", "<other>").unread("U:hi\nA:well<e>\nU:") == "<e>\nU:"
    assert after("A:", "", "<e>").unread("U:hi\nA:<e>\nU:") == "\nU:"
    for other in ("U:ho\nA:well<e>\nU:bye", "U:"):
        assert talk.unread(other) is None
        assert not talk.is_retold(other)


@pytest.mark.parametrize("answer", ["well", "A", ":", ""])
@pytest.mark.parametrize("told", ["A:other<e>\nU:bye", "A:well, no<e>\nU:", "Awell<e>\nU:", "A:"])
def test_an_answer_that_is_not_told_as_it_was_read(answer, told):
    talk = after("A:", answer, "<e>")
    assert talk.is_retold("U:hi\n" + told)
    assert talk.unread("U:hi\n" + told) == (told if told == "A:" else None)
    assert talk.before_turn().unread("U:hi\n" + told) == told


@pytest.mark.parametrize("said", ["well", "A", "<b>", "hm"])
@pytest.mark.parametrize(
    ("prompt", "thought"),
    [
        ("A:", "<think>hm, well</think> "),  # Qwen 3
        ("A:<think>", "hm, well</think> "),  # DeepSeek R1
        ("A:<think></think>", ""),  # Qwen 3 that was told not to think
    ],
)
def test_what_a_model_thought_is_not_told(prompt, thought, said):
    """Nor the empty thought in the prompt; what was told of it is not read again."""
    talk = after(prompt, thought + said, "<e>")
    assert talk.is_retold(f"U:hi\nA:{said}<e>\nU:bye\nA:")
    assert talk.unread(f"U:hi\nA:{said}<e>\nU:bye\nA:") == "\nU:bye\nA:"
    assert talk.unread("U:hi\nA:other<e>\nU:bye\nA:") is None
    alone = after("A:", "<think>hm</think>", "<e>")
    assert alone.unread("U:hi\nA:<e>\nU:bye\nA:") == "\nU:bye\nA:"


def spoken(session, ids_of_call):
    """What the session reads, as text with its special tokens."""
    read = session._executor.read

    def record(ids):
        read(ids)
        ids_of_call.extend(ids)

    session._executor.read = record


def test_chat_reads_only_what_is_new(make_session):
    session = make_session(capacity=256)
    ids: list[int] = []
    spoken(session, ids)
    answer = "".join(session.chat(HELLO, max_new_tokens=6))
    follow = [*HELLO, {"role": "assistant", "content": answer}, {"role": "user", "content": "Bye"}]
    "".join(session.chat(follow, max_new_tokens=2))
    text = session.tokenizer.decode(ids, special=True)
    start = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert text.startswith(start)
    assert text.count("Hello") == 1
    assert text.count("<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n") == 1


def test_the_end_of_an_answer_is_read_once(make_session):
    session = make_session(capacity=256)
    ids: list[int] = []
    spoken(session, ids)
    session._executor.logits = lambda: np_one_hot(END)
    assert "".join(session.chat(HELLO)) == ""
    follow = [*HELLO, {"role": "assistant", "content": ""}, {"role": "user", "content": "Bye"}]
    "".join(session.chat(follow))
    text = session.tokenizer.decode(ids, special=True)
    assert text == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def np_one_hot(token):
    import numpy as np

    logits = np.zeros(260, np.float32)
    logits[token] = 9
    return logits


def test_another_conversation_is_read_as_a_whole(make_session):
    session = make_session(capacity=256)
    ids: list[int] = []
    spoken(session, ids)
    "".join(session.chat(HELLO, max_new_tokens=3))
    "".join(session.generate("Hello", chat=True, max_new_tokens=3))
    assert session.tokenizer.decode(ids, special=True).count("Hello") == 2


def script(session, text):
    """The session says this text, and ends."""
    logits = iter([*(np_one_hot(ord(letter)) for letter in text), np_one_hot(END)])
    session._executor.logits = lambda: next(logits)


def held(session):
    """All that the session holds, where no cycle ran."""
    return [*session._executor.since_cycle, *session._reader.pending]


BYE = {"role": "user", "content": "Bye"}
THOUGHTLESS = CHAT_TEMPLATE.replace(
    "message['content']", "message['content'].split('</think>')[-1].strip()"
)
INST = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"  # as Llama 2


def test_thoughts_are_taken_back(make_session):
    """A template leaves them out: then the session holds what it tells, no more and no less."""
    session = make_session(capacity=256)
    session.tokenizer.config["chat_template"] = THOUGHTLESS
    script(session, "<think>hm</think> Ha")
    answer = "".join(session.chat(HELLO))
    assert answer == "<think>hm</think> Ha"
    script(session, "Ho")
    follow = [*HELLO, {"role": "assistant", "content": answer}, BYE]
    assert "".join(session.chat(follow)) == "Ho"
    whole = session.model.template().render(follow) + "Ho<|im_end|>"
    assert "hm" not in whole
    assert held(session) == session.encode(whole)


def test_thoughts_stay_after_a_cycle(make_session):
    """What cannot be taken back is left where it is, and nothing is read twice."""
    session = make_session(capacity=256)
    session.tokenizer.config["chat_template"] = THOUGHTLESS
    script(session, "<think>" + "hm" * 10 + "</think> Ha")
    answer = "".join(session.chat(HELLO))
    session.distill()
    assert session.cycles
    ids: list[int] = []
    spoken(session, ids)
    script(session, "Ho")
    assert "".join(session.chat([*HELLO, {"role": "assistant", "content": answer}, BYE])) == "Ho"
    after = "\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>"
    assert [*ids, *session._reader.pending] == session.encode(after)


def test_a_template_may_ask_with_half_a_character(make_session):
    """A lone surrogate, behind what the session does not hold as it is told."""
    session = make_session(capacity=256)
    session.feed("Hi")
    assert session._talk._before("Hello", "\ud83d:", 0) is None


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, INST])
def test_the_same_conversation_gets_another_answer(make_session, tmp_path, template):
    session = make_session(capacity=256)
    session.tokenizer.config["chat_template"] = template
    for said in ("One", "Two"):
        script(session, said)
        assert "".join(session.chat(HELLO)) == said
        assert held(session) == session.encode(
            session.model.template().render(HELLO) + f"{said}<|im_end|>"
        )
        session.save(tmp_path / "state")  # what can be taken back is known after a load, too
        session.load(tmp_path / "state")
    script(session, "Ho")
    edited = [*HELLO, {"role": "assistant", "content": "Three"}, BYE]
    assert "".join(session.chat(edited)) == "Ho", "an answer that somebody corrected"
    assert held(session) == session.encode(session.model.template().render(edited) + "Ho<|im_end|>")


def test_a_date_stays_that_of_the_beginning(make_session, tmp_path, monkeypatch):
    """A conversation goes on after midnight, in another process, too; another one has its own."""

    class Clock(datetime.datetime):
        day = 1

        @classmethod
        def now(cls):
            return cls(2026, 3, cls.day, 23, 59)

    monkeypatch.setattr("lcc.runtime.text.chat.datetime.datetime", Clock)
    session = make_session(capacity=256)
    session.tokenizer.config["chat_template"] = "{{ strftime_now('%d/%m') }}" + INST
    script(session, "Ha")
    assert "".join(session.chat(HELLO)) == "Ha"
    session.save(tmp_path / "state")
    Clock.day = 2
    follow = [*HELLO, {"role": "assistant", "content": "Ha"}, BYE]
    for load in (False, True):
        if load:
            session.load(tmp_path / "state")
        script(session, "Ho")
        assert "".join(session.chat(follow)) == "Ho"
        text = session.tokenizer.decode(held(session))
        assert text == "01/03[user]Hello[assistant]Ha[user]ByeHo", "nothing is read twice"
    script(session, "He")
    assert "".join(session.chat([BYE])) == "He"
    assert session.tokenizer.decode(held(session)) == text + "02/03[user]ByeHe"
    session.reset()
    script(session, "Ha")
    assert "".join(session.chat(HELLO)) == "Ha"
    assert session.tokenizer.decode(held(session)) == "02/03[user]HelloHa"


def test_no_template(make_session, make_artifact):
    session = make_session()
    del session.tokenizer.config["chat_template"]
    with pytest.raises(ConfigError, match="no chat template"):
        session.chat(HELLO)
    session.tokenizer.config["chat_template"] = [{"name": "default", "template": CHAT_TEMPLATE}]
    assert next(session.chat(HELLO, eos=[])) is not None
    with pytest.raises(ConfigError, match="chat needs a prompt"):
        session.generate(chat=True)


def test_callback_and_stop_strings(make_session):
    session = make_session(capacity=256)
    logits = iter([np_one_hot(ord(letter)) for letter in "one two.END more"] * 2)
    session._executor.logits = lambda: next(logits)
    pieces: list[str] = []
    text = "".join(session.generate("x", stop="END", callback=pieces.append))
    assert text == "".join(pieces) == "one two."
    assert session.tokens == 1 + len("one two.END")
    logits = iter([np_one_hot(ord(letter)) for letter in "one two"])
    assert "".join(session.generate(callback=lambda piece: piece != "e")) == "one"


def test_stop_strings_of_the_model_end_an_answer(make_session):
    session = make_session(capacity=256, stops=("END",))
    for stop, wanted in ((None, "one two."), ("wo", "one t")):
        script(session, "one two.END more")
        assert "".join(session.generate("x", stop=stop)) == wanted


@pytest.mark.parametrize(
    ("stop", "shown"),
    [("<|im_start|>", "Hello"), ("<|im_start|>user", "Hello"), (" says", "Hellouser"), ("x", None)],
)
def test_a_stop_string_may_be_a_special_token(make_session, monkeypatch, stop, shown):
    session = make_session(capacity=256)
    ids = iter([*b"Hello", 257, *b"user says more", END])
    monkeypatch.setattr(session._executor, "logits", lambda: np_one_hot(next(ids)))
    text = "".join(session.generate("x", stop=stop, max_new_tokens=40))
    assert text == (shown or "Hellouser says more")


def test_a_message_interrupted_while_it_is_read_is_not_read_twice(make_session):
    session = make_session()
    read, calls = session._executor.read, []

    def interrupted(ids):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(ids))
        read(ids)

    session._executor.read = interrupted
    with pytest.raises(KeyboardInterrupt):
        "".join(session.chat([{"role": "user", "content": "0123"}], max_new_tokens=2))
    assert len(calls) == 2
    assert session.tokens == 0


def test_what_was_fed_after_an_answer_is_never_taken_back(make_session):
    session = make_session(capacity=256)
    script(session, "One")
    "".join(session.chat(HELLO))
    session.feed("a book")
    script(session, "Two")
    "".join(session.chat(HELLO))
    text = session.tokenizer.decode(held(session), special=True)
    prompt = "<|im_start|>assistant\n"
    assert text.endswith(f"{prompt}One<|im_end|>a book{prompt}Two<|im_end|>")
    assert text.count("Hello") == 1


def test_an_answer_that_was_left_changes_nothing_later(make_session):
    """Iterators live on after the session has moved; and one that never began did nothing."""
    session = make_session(capacity=256)
    script(session, "One")
    left = session.chat(HELLO)
    assert next(left) == "O"
    script(session, "Two")
    other = [{"role": "user", "content": "Other"}]
    "".join(session.chat(other))
    del left
    script(session, "Three")
    session.chat(other)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        session.chat(other, max_new_tokens=0)
    assert session.tokenizer.decode(held(session), special=True).endswith("Two<|im_end|>")
    "".join(session.chat(other))
    text = session.tokenizer.decode(held(session), special=True)
    assert "Two" not in text
    assert text.endswith(
        "<|im_start|>user\nOther<|im_end|>\n<|im_start|>assistant\nThree<|im_end|>"
    )
    assert text.count("Other") == 1


def test_a_template_that_only_asks(make_session):
    """It refuses to tell a conversation without asking; then all is one text."""
    asks = "{% if not add_generation_prompt %}{{ raise_exception('no') }}{% endif %}" + INST
    template = ChatTemplate(asks, {})
    assert template.render_turn(HELLO) == ("[user]Hello", "")
    other = ChatTemplate(INST + "{% if not add_generation_prompt %}<e>{% endif %}", {})
    assert other.render_turn(HELLO) == ("[user]Hello", "")
