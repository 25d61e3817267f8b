"""What the artifact says of the model's text, from files made by hand."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from lcc.artifact.schedule import Catalyst, TextFacts, Turns
from lcc.errors import ConfigError, ModelError
from lcc.sources.models import load_model
from lcc.sources.text_facts import sentence_ends, text_facts
from lcc.testing.tiny import CHAT_TEMPLATE, END, END_OF_TEXT, PAD, START, tiny_tokenizer

CHATML = Turns(
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    user=("<|im_start|>user\n", "<|im_end|>\n"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
    prompt="<|im_start|>assistant\n",
)


def files_of(tokenizer: Tokenizer | None = None, **pages: object) -> dict[str, bytes]:
    """Files of a model: a tokenizer of bytes, and pages by name, without their endings."""
    tokenizer = tokenizer or tiny_tokenizer()
    files = {f"{name}.json": json.dumps(page).encode() for name, page in pages.items()}
    return {"tokenizer.json": tokenizer.to_str().encode(), **files}


def facts(files: dict[str, bytes], **options: object) -> TextFacts:
    all_options = {"vocab_size": 260, "catalyst": None, "catalyst_size": 8, **options}
    return text_facts(files, **all_options)


def test_all_of_it() -> None:
    files = files_of(
        generation_config={"eos_token_id": [END, END_OF_TEXT, END], "stop_strings": "\nUser:"},
        tokenizer_config={"eos_token": "<|pad|>"},
    )
    files["chat_template.jinja"] = CHAT_TEMPLATE.encode()
    assert facts(files, catalyst="Hi\n", catalyst_size=3) == TextFacts(
        ends=(END, END_OF_TEXT),
        separator=(10, 10),
        special=(END_OF_TEXT, START, END, PAD),
        stops=("\nUser:",),
        catalyst=Catalyst(ids=(72, 105, 10)),
        turns=CHATML,
    )


def test_a_tokenizer_alone() -> None:
    assert facts(files_of()) == TextFacts(separator=(10, 10), special=(256, 257, 258, 259))


def test_ids_around_a_text() -> None:
    """What begins one is the prefix; what ends one is no part of it, nor of other texts."""
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> <|pad|> $A <|im_end|>",
        special_tokens=[("<|im_start|>", START), ("<|pad|>", PAD), ("<|im_end|>", END)],
    )
    found = facts(files_of(tokenizer), catalyst="?")
    assert found.prefix == (START, PAD)
    assert (found.separator, found.catalyst) == ((10, 10), Catalyst(ids=(63,)))


def test_nothing_is_cut_or_padded() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(length=6, pad_id=PAD)
    found = facts(files_of(tokenizer), catalyst="abc")
    assert (found.prefix, found.separator) == ((), (10, 10))
    assert found.catalyst == Catalyst(ids=(97, 98, 99))


@pytest.mark.parametrize(
    ("generation", "tokenizer", "ends"),
    [
        ({"eos_token_id": 7}, {"eos_token": "<|pad|>"}, (7,)),
        ({"eos_token_id": []}, {"eos_token": "<|pad|>"}, ()),
        ({"eos_token_id": None}, {"eos_token": "<|pad|>"}, (PAD,)),
        ({}, {"eos_token": {"content": "<|im_end|>"}}, (END,)),
        ({}, {"eos_token": "<|unheard of|>"}, ()),
        ({}, {}, ()),
    ],
)
def test_ids_that_end_an_answer(
    generation: dict[str, object], tokenizer: dict[str, object], ends: tuple[int, ...]
) -> None:
    files = files_of(generation_config=generation, tokenizer_config=tokenizer)
    assert facts(files).ends == ends


@pytest.mark.parametrize(
    ("generation", "error"),
    [
        ({"eos_token_id": [2, 260]}, "eos_token_id: token 260 is not .*, wanted 0 to 259;"),
        ({"eos_token_id": -1}, "eos_token_id: token -1 is not in the model's vocabulary"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', wanted a token id or a list"),
        ({"eos_token_id": True}, "eos_token_id is True, wanted a token id"),
        ({"stop_strings": ["."] * 2 + [3]}, "stop_strings is .*3.*, wanted a text or a list"),
        ({"stop_strings": [""]}, "stop_strings is "),
    ],
)
def test_generation_defaults_that_cannot_be(generation: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=f"^generation_config.json: {error}"):
        facts(files_of(generation_config=generation))


def test_a_tokenizer_of_another_model() -> None:
    """Its ids must be the model's where the runtime uses them unasked."""
    config = {"eos_token": "<|im_end|>"}
    with pytest.raises(ConfigError, match=r"^tokenizer_config\.json: eos_token: token 258 is not"):
        facts(files_of(tokenizer_config=config), vocab_size=258)
    assert facts(files_of(), vocab_size=258).special == (256, 257)
    with pytest.raises(ConfigError, match=r"an empty line: token 10 .* wanted 0 to 9"):
        facts(files_of(), vocab_size=10)
    with pytest.raises(ConfigError, match=r"the catalyst: token 99 .* wanted 0 to 98"):
        facts(files_of(), vocab_size=99, catalyst="abc")
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", START)]
    )
    with pytest.raises(ConfigError, match=r"what begins a text: token 257 .* wanted 0 to 255"):
        facts(files_of(tokenizer), vocab_size=256)


def test_special_tokens_are_those_said_to_be() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    tokenizer.add_special_tokens(["<end>"])
    assert tokenizer.token_to_id("<tool>") == 260
    assert facts(files_of(tokenizer), vocab_size=300).special == (256, 257, 258, 259, 261)


@pytest.mark.parametrize(
    ("catalyst", "size", "error"),
    [
        ("123456789", 8, r"has 9 tokens, wanted 1 to catalyst_size \(8\); shorten the catalyst"),
        ("", 8, "has 0 tokens, wanted 1 to catalyst_size"),
        ("1", 0, "catalyst_size is 0, .* wanted 1 or more: --catalyst-size"),
        ("beginning", 0, "catalyst_size is 0, "),
    ],
)
def test_catalysts_that_do_not_fit(catalyst: str, size: int, error: str) -> None:
    assert facts(files_of(), catalyst="12345678", catalyst_size=8).catalyst is not None
    with pytest.raises(ConfigError, match=error):
        facts(files_of(), catalyst=catalyst, catalyst_size=size)


def test_the_beginning_as_catalyst() -> None:
    found = facts(files_of(), catalyst="beginning", catalyst_size=1)
    assert found.catalyst == Catalyst(beginning=32)


def test_a_catalyst_that_is_no_text() -> None:
    assert facts(files_of(), catalyst="a\udc80").catalyst == Catalyst(ids=(97, 63))


def test_without_a_tokenizer() -> None:
    """Ids in, ids out: what ends an answer is all that is known."""
    files = files_of(
        generation_config={"eos_token_id": 3, "stop_strings": "."},
        tokenizer_config={"eos_token": "<|pad|>", "chat_template": CHAT_TEMPLATE},
    )
    del files["tokenizer.json"]
    assert facts(files) == TextFacts(ends=(3,))
    assert facts(files, catalyst="beginning").catalyst == Catalyst(beginning=32)
    with pytest.raises(ConfigError, match=r"'Why\?' and the model has no .* wanted 'beginning'"):
        facts(files, catalyst="Why?")
    assert facts({}) == TextFacts()
    assert facts({"tokenizer_config.json": files["tokenizer_config.json"]}).ends == ()


def test_where_the_template_is() -> None:
    """The file goes before the page; of several templates, the default one counts."""
    other = CHAT_TEMPLATE.replace("im_", "")
    files = files_of(tokenizer_config={"chat_template": other})
    found = facts(files).turns
    assert found is not None
    assert found.prompt == "<|start|>assistant\n"
    assert facts(files | {"chat_template.jinja": CHAT_TEMPLATE.encode()}).turns == CHATML
    several = [
        {"name": "tool_use", "template": other},
        {"name": "default", "template": CHAT_TEMPLATE},
    ]
    assert facts(files_of(tokenizer_config={"chat_template": several})).turns == CHATML
    assert facts(files_of(tokenizer_config={"chat_template": several[:1]})).turns is None


def test_special_tokens_of_a_template() -> None:
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": "<|im_end|>",
        "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{{ eos_token }}{% endfor %}",
    }
    found = facts(files_of(tokenizer_config=config)).turns
    assert found is not None
    assert (found.begin, found.user) == ("<s>", ("user:", "<|im_end|>"))


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        CHAT_TEMPLATE + "{{ strftime_now('%Y') }}",
        CHAT_TEMPLATE.replace("message['content']", "message['content'].replace('/no', '')"),
    ],
    ids=["broken", "date", "looks for a word"],
)
def test_templates_that_are_not_regular(template: str) -> None:
    assert facts(files_of() | {"chat_template.jinja": template.encode()}).turns is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff"),
        ("tokenizer_config.json", b"{"),
        ("generation_config.json", b"[]"),
        ("generation_config.json", b"\xff"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes) -> None:
    with pytest.raises(ModelError, match=f"^{name}: "):
        facts(files_of() | {name: content})


ENDING = (
    *(".", "end.", "Why?", "No!", "。", "！", "何？", "…", '."', ".)", ".'", ".]}", "?»", ".”"),
    *(".’", ".**", "._ ", "\n", "a\nb"),
)
OTHERS = (
    *("plain", "’", "\r", ".\t", "3.14", ".a", ",", ":", ";", "(", ".(", '"', " "),
    "<end.>",
)


def test_tokens_that_end_a_sentence() -> None:
    """Special tokens count like others; ids that the tokenizer does not know end nothing."""
    ids = {text: i for i, text in enumerate((*ENDING, *OTHERS))}
    tokenizer = Tokenizer(models.WordLevel(ids, "plain"))
    tokenizer.add_special_tokens(["<end.>", "<end>."])
    ends = sentence_ends(files_of(tokenizer), len(ids) + 4)
    assert ends.dtype == np.bool_
    assert ends.tolist() == [True] * len(ENDING) + [False] * len(OTHERS) + [True] + [False] * 3


def test_tokens_of_bytes_that_end_a_sentence() -> None:
    """A byte of a longer character is no character."""
    expected = {ord(letter) for letter in ".!?\n"}
    assert set(np.flatnonzero(sentence_ends(files_of(), 260)).tolist()) == expected


def test_tokens_with_a_space_of_their_own() -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"▁so.": 0, "▁so": 1, "<0x0A>": 2}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback()])
    assert sentence_ends(files_of(tokenizer), 3).tolist() == [True, False, True]


def test_sentences_need_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json to tell .*; choose another policy"):
        sentence_ends({}, 9)


@pytest.mark.slow
def test_smollm2() -> None:
    found = text_facts(
        load_model("smollm2").files, vocab_size=49152, catalyst="beginning", catalyst_size=64
    )
    name = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert (found.prefix, found.ends, found.special) == ((), (0, 2), tuple(range(17)))
    assert found.turns == Turns(
        system=CHATML.system,
        user=CHATML.user,
        assistant=CHATML.assistant,
        prompt=CHATML.prompt,
        default_system=name,
    )
