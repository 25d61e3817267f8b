"""The files that turn text into tokens and back, as they lie in the model's own folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcc.errors import ModelError
from lcc.runtime.text.trial import tried
from lcc.sources.folder import NO_CODE
from lcc.sources.generation import generation_page

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "qwen.tiktoken",
)


def folder_text_files(source: str, folder: Path, module: Any, name: str) -> dict[str, bytes]:
    """Name -> content; tokenizer.json byte for byte, where the folder has one.

    Without a tokenizer there is generation_config.json alone, and the artifact is fed token ids.
    """
    tokenizer = None
    own = folder / "tokenizer.json"
    if own.is_file():
        tried(own.read_bytes(), f"{name}: tokenizer.json", ModelError)
    here = [path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)]
    if here or not Path(source).is_dir():
        tokenizer = _tokenizer(source, name, whole=own.is_file())
    page = generation_page(module.generation_config, module.config, tokenizer, name)
    files = {"generation_config.json": json_bytes(page)}
    if tokenizer is None:
        return files
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{name}: {type(tokenizer).__name__} has no tokenizer.json form")
    files["tokenizer.json"] = own.read_bytes() if own.is_file() else _converted(tokenizer)
    return files | template_files(tokenizer.chat_template, dict(tokenizer.special_tokens_map))


def template_files(
    template: str | Mapping[str, str] | None, page: dict[str, Any]
) -> dict[str, bytes]:
    """The chat template beside the special tokens: a file of its own, or several by name.

    page    of tokenizer_config.json: names of special tokens -> their text
    """
    files = {}
    if isinstance(template, str):
        files["chat_template.jinja"] = template.encode()
    elif template:
        page = page | {
            "chat_template": [
                {"name": name, "template": each} for name, each in sorted(template.items())
            ]
        }
    return {**files, "tokenizer_config.json": json_bytes(page)}


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys: the same value, the same bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _tokenizer(source: str, name: str, *, whole: bool) -> Any:
    """The tokenizer of transformers: special tokens, template, and files of other forms.

    whole   there is a tokenizer.json: then its class needs not be known
    """
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(source, **NO_CODE)
    except (ValueError, ImportError, AttributeError) as error:
        if whole:
            return transformers.PreTrainedTokenizerFast.from_pretrained(source, **NO_CODE)
        if "trust_remote_code" not in str(error):
            raise
        raise ModelError(
            f"{name}: its tokenizer needs code of the model's own folder, and lcc runs none; "
            "wanted a tokenizer.json, or a tokenizer_class that transformers has"
        ) from None


def _converted(tokenizer: Any) -> bytes:
    """What a folder without tokenizer.json has in other files, in that form."""
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save_pretrained(saved)
        return Path(saved, "tokenizer.json").read_bytes()
