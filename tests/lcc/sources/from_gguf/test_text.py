"""Tokenizers, ends and templates of GGUF files."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers

from lcc.errors import ModelError
from lcc.sources.from_gguf.load import GgufModel
from lcc.sources.from_gguf.pre_tokenizers import SPLITS
from lcc.testing.gguf_writing import built, byte_tokenizer, write

WORDS = ["ab", "cd", "abcd", "12", "123"]
TOKENS = [*byte_tokenizer()["ggml.tokens"][:259], *WORDS]
MERGES = ["a b", "c d", "1 2", "12 3"]


@pytest.fixture(scope="module")
def module() -> Any:
    return built("llama", vocab_size=264)


def files_of(path: Path, module: Any, metadata: Any = None, **more: Any) -> dict[str, bytes]:
    usual = byte_tokenizer() | {
        "ggml.tokens": TOKENS,
        "ggml.token_type": [1] * 256 + [3] * 3 + [1] * 5,
        "ggml.merges": MERGES,
    }
    page = {key.replace("__", "."): value for key, value in more.items()}
    tokenizer = {key: value for key, value in (usual | page).items() if value is not None}
    write(path / "m.gguf", "llama", module, metadata, tokenizer=tokenizer)
    return GgufModel(path / "m.gguf", "m").files


def tokens(files: dict[str, bytes], text: str, *, whole: bool = False) -> list[str]:
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    found: list[str] = tokenizer.encode(text, add_special_tokens=whole).tokens
    return found


def generation(files: dict[str, bytes]) -> dict[str, Any]:
    page: dict[str, Any] = json.loads(files["generation_config.json"])
    return page


APART, THREES = ["1", "2", "3", "4"], ["123", "4"]


@pytest.mark.parametrize(
    ("names", "digits"),
    [
        ("falcon dbrx smaug-bpe chatglm-bpe glm4 llama-bpe llama3 deepseek-v3 gpt-4o", THREES),
        ("starcoder refact command-r smollm codeshell exaone minerva-7b", APART),
        ("deepseek-llm deepseek-coder stablelm2 qwen2 tekken seed-coder viking", APART),
        ("gpt-2 phi-2 mpt olmo jais exaone4 granite-docling", THREES),
    ],
)
def test_a_text_is_split_as_the_name_says(
    names: str, digits: list[str], module: Any, tmp_path: Path
) -> None:
    for name in names.split():
        files = files_of(tmp_path, module, ggml__pre=name)
        assert tokens(files, "1234")[:2] == digits[:2], name
        text = "I'LL don't\n\n  pay 1234,5 Grüße 東京"
        tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        assert tokenizer.decode(tokenizer.encode(text).ids) == text, name


def test_every_split_reads_every_text(module: Any, tmp_path: Path) -> None:
    text = "The  cat's 12345 a\u0300 naïve\r\n\tçava; 東京タワー 1,234.5 (x)=[y] \u00a0 end  "
    for name in SPLITS:
        files = files_of(tmp_path, module, ggml__pre=name)
        tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        normal = normalizers.NFC().normalize_str(text) if SPLITS[name].composed else text
        assert tokenizer.decode(tokenizer.encode(text).ids) == normal, name


def test_an_unknown_split_is_named(module: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.pre is 'later', a split that lcc does"):
        files_of(tmp_path, module, ggml__pre="later")
    with pytest.raises(ModelError, match=r"no field tokenizer\.ggml\.pre, which says how a text"):
        files_of(tmp_path, module, ggml__pre=None)
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.model is 'bert', a tokenizer that"):
        files_of(tmp_path, module, ggml__model="bert")


def test_words_of_the_vocabulary_that_no_merges_lead_to(module: Any, tmp_path: Path) -> None:
    for name, wanted in (("llama-bpe", ["abcd"]), ("tekken", ["abcd"]), ("qwen2", ["ab", "cd"])):
        assert tokens(files_of(tmp_path, module, ggml__pre=name), "abcd") == wanted, name


@pytest.mark.parametrize(
    ("pre", "flag", "begins"),
    [
        ("llama-bpe", None, True),
        ("tekken", None, True),
        ("llama-bpe", False, False),
        ("gpt-2", None, False),
        ("gpt-2", True, True),
        ("qwen2", None, False),
    ],
)
def test_what_begins_a_text(
    pre: str, flag: bool | None, begins: bool, module: Any, tmp_path: Path
) -> None:
    files = files_of(tmp_path, module, ggml__pre=pre, ggml__add_bos_token=flag)
    wanted = ["<|start|>", "ab"] if begins else ["ab"]
    assert tokens(files, "ab", whole=True) == wanted
    page = json.loads(files["tokenizer_config.json"])
    assert (page["bos_token"], page["eos_token"]) == ("<|start|>", "<|stop|>")


def test_every_end_ends(module: Any, tmp_path: Path) -> None:
    def ends(**more: Any) -> list[int]:
        found: list[int] = generation(files_of(tmp_path, module, **more))["eos_token_id"]
        return found

    assert ends() == [258]
    assert ends(ggml__eot_token_id=256) == [256, 258]
    assert ends(ggml__eom_token_id=257, ggml__eot_token_id=256) == [256, 257, 258]
    named = [*TOKENS[:256], "<end_of_turn>", "<|start|>", "<|stop|>", *WORDS]
    assert ends(ggml__tokens=named) == [256, 258]
    plain = [*TOKENS[:259], "<|im_end|>", *WORDS[1:]]  # no control token, but a text that looks so
    assert ends(ggml__tokens=plain, ggml__merges=["c d"]) == [258]
    harmony = [*TOKENS[:256], "<|end|>", "<|call|>", "<|return|>", *WORDS]
    assert ends(ggml__tokens=harmony) == [257, 258]


def test_ids_that_are_none_are_refused(module: Any, tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "bos_token_id is 999": {"ggml__bos_token_id": 999},
        "token_type 3": {"ggml__token_type": [1, 1, 1]},
        "token_type has 9": {"ggml__token_type": [9] * 264},
        "'ab' is there twice": {"ggml__tokens": [*TOKENS[:-1], "ab"]},
        "tokenizer.ggml.merges: ": {"ggml__merges": ["a zz"]},
        "add_bos_token is true and there is no": {
            "ggml__add_bos_token": True,
            "ggml__bos_token_id": None,
        },
        "add_sep_token is true": {"ggml__add_sep_token": True},
    }
    for words, more in cases.items():
        with pytest.raises(ModelError) as caught:
            files_of(tmp_path, module, **more)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_how_to_generate_and_templates(module: Any, tmp_path: Path) -> None:
    sampling = {
        "general.sampling.temp": 0.5,
        "general.sampling.top_k": 7,
        "general.sampling.penalty_repeat": 1.5,
        "general.sampling.mirostat": 0,
    }
    page = generation(files_of(tmp_path, module, sampling))
    assert (page["temperature"], page["top_k"], page["do_sample"]) == (0.5, 7, True)
    assert page["repetition_penalty"] == 1.5
    files = files_of(tmp_path, module, chat_template="one")
    assert files["chat_template.jinja"] == b"one"
    more = {"chat_template": "one", "chat_template.tool_use": "two", "chat_templates": ["tool_use"]}
    files = files_of(tmp_path, module, **more)
    listed = json.loads(files["tokenizer_config.json"])["chat_template"]
    assert {each["name"]: each["template"] for each in listed} == {
        "default": "one",
        "tool_use": "two",
    }


def test_a_file_without_a_tokenizer(module: Any, tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", "llama", module, tokenizer={})
    assert set(GgufModel(tmp_path / "m.gguf", "m").files) == {"generation_config.json"}


def sentencepiece(**more: Any) -> dict[str, Any]:
    """Bytes, letters, and words whose scores say the order of merging."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds, scores = [2, 3, 3, *[6] * 256], [0.0] * 259
    for word in [*"▁abcdehlo", "he", "ll", "▁he", "hell", "▁hell", "lo", "o▁"]:
        pieces.append(word)
        kinds.append(1)
        scores.append(-float(len(pieces)))
    return {
        "ggml.model": "llama",
        "ggml.tokens": pieces,
        "ggml.token_type": kinds,
        "ggml.scores": scores,
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        **more,
    }


def by_scores(text: str, pieces: list[str], scores: list[float]) -> list[str]:
    """SentencePiece's own way: the best pair of neighbours first, unknown letters as bytes."""
    symbols = list(text)
    while True:
        pairs = [
            (-scores[pieces.index(a + b)], i)
            for i, (a, b) in enumerate(pairwise(symbols))
            if a + b in pieces
        ]
        if not pairs:
            break
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    return [
        piece
        for symbol in symbols
        for piece in ([symbol] if symbol in pieces else [f"<0x{b:02X}>" for b in symbol.encode()])
    ]


def test_sentencepiece(tmp_path: Path) -> None:
    page = sentencepiece()
    module = built("llama", vocab_size=len(page["ggml.tokens"]))
    for space in (True, False):
        more = {} if space else {"ggml.add_space_prefix": False}
        write(tmp_path / "m.gguf", "llama", module, tokenizer=page | more)
        files = GgufModel(tmp_path / "m.gguf", "m").files
        for text in ("hello", "hello hello", " hello  hell", "aé bé\n", "", "o hello ò"):
            marked = text.replace(" ", "▁")
            marked = f"▁{marked}" if space and text else marked
            wanted = by_scores(marked, page["ggml.tokens"], page["ggml.scores"])
            assert tokens(files, text) == wanted, text
        assert tokens(files, "hello", whole=True)[0] == "<s>"
        assert tokens(files, "</s>hell") == ["</s>", "▁hell" if space else "hell"]
        back = Tokenizer.from_str(files["tokenizer.json"].decode())
        assert back.decode(back.encode("hello é").ids) == "hello é"
    assert isinstance(back.model, models.BPE)
