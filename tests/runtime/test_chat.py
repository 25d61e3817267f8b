import pytest

from lcc.errors import ConfigError
from lcc.runtime.chat import ChatTemplate, Conversation, check_messages
from lcc.tiny import CHAT_TEMPLATE, END

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


@pytest.mark.parametrize("messages", ["Hello", [], {"role": "user"}, [{"content": "x"}], ["Hello"]])
def test_what_is_no_conversation(messages):
    with pytest.raises(ConfigError, match="messages"):
        check_messages(messages)


def test_what_is_new_in_a_conversation():
    talk = Conversation.of("U:hi\nA:", " well ", "<e>")
    assert talk.unread("U:hi\nA: well <e>\nU:bye\nA:") == " <e>\nU:bye\nA:"
    assert talk.unread("U:hi\nA:well<e>\nU:bye\nA:") == "\nU:bye\nA:"
    assert Conversation.of("U:hi\nA:", "we", None).unread("U:hi\nA:we<e>\nU:") == "<e>\nU:"
    assert talk.unread("U:hi\nA:other<e>\nU:bye") is None
    assert talk.unread("U:ho\nA:well<e>\nU:bye") is None
    assert talk.unread("U:") is None


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
