"""The files of a folder's text travel as they lie there."""

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from lcc.sources.models import load_model
from lcc.sources.text_facts import text_facts
from lcc.testing.tiny import save_tiny

DIGITS = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
)
THREES = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize(
    "name", ["GPT2Tokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", "PreTrainedTokenizerFast"]
)
@pytest.mark.parametrize("split", [DIGITS, THREES], ids=["digits", "threes"])
def test_tokenizer_json_is_the_folders_own(
    tmp_path: Path, architecture: str, name: str, split: object
) -> None:
    """transformers builds one of these classes anew from vocabulary and merges, with its split."""
    save_tiny(tmp_path, architecture)
    vocabulary = {
        letter: i for i, letter in enumerate([*map(chr, range(33, 127)), "Ġ", "12", "23"])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", "2"), ("2", "3")]))
    tokenizer.pre_tokenizer = split
    tokenizer.normalizer = normalizers.Lowercase()
    content = json.dumps(json.loads(tokenizer.to_str()), indent=1)  # no library writes it so
    (tmp_path / "tokenizer.json").write_text(content)
    page = {"tokenizer_class": name, "eos_token": "!", "bos_token": "#", "unk_token": "?"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(page))
    files = load_model(tmp_path).files
    assert files["tokenizer.json"].decode() == content
    assert json.loads(files["tokenizer_config.json"])["bos_token"] == "#"


def test_templates_by_name_travel_with_their_names(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    templates = {"default": "D{{ messages[0].content }}", "tool_use": "T{{ tools }}"}
    path = tmp_path / "tokenizer_config.json"
    page = json.loads(path.read_text())
    page["chat_template"] = [{"name": k, "template": v} for k, v in templates.items()]
    path.write_text(json.dumps(page))
    files = load_model(tmp_path).files
    found = json.loads(files["tokenizer_config.json"])["chat_template"]
    assert {each["name"]: each["template"] for each in found} == templates
    assert "chat_template.jinja" not in files
    text_facts(files, vocab_size=260, catalyst=None, catalyst_size=0)


@pytest.mark.parametrize("code", [None, {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}])
def test_a_class_that_nobody_knows_beside_a_tokenizer_json(
    tmp_path: Path, code: dict[str, list[str]] | None
) -> None:
    save_tiny(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')")
    path = tmp_path / "tokenizer_config.json"
    page = json.loads(path.read_text()) | {"tokenizer_class": "MineTokenizer"}
    path.write_text(json.dumps(page | ({"auto_map": code} if code else {})))
    files = load_model(tmp_path).files
    assert files["tokenizer.json"] == (tmp_path / "tokenizer.json").read_bytes()
    assert json.loads(files["tokenizer_config.json"])["eos_token"] == "<|im_end|>"
    assert "chat_template.jinja" in files
