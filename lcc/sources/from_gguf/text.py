"""The text files of a GGUF model: tokenizer, special tokens, chat template, how to generate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lcc.errors import ModelError
from lcc.sources.from_gguf.file import Fields, GgufFile
from lcc.sources.from_gguf.tokenizer import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    byte_level,
    sentencepiece,
    split_of,
)
from lcc.sources.text_files import json_bytes, template_files

log = logging.getLogger(__name__)

PREFIX = "tokenizer.ggml."
NONE = (None, "none", "no_vocab")
# Tokens that end an answer by their text: few files list them all, and llama.cpp stops at them.
ENDS = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>"),
        *("<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>"),
        *("[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>"),
        *("<｜end▁of▁sentence｜>", "[e~["),
    }
)
SPECIAL = {  # name in a template -> field of its id
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "sep_token": "seperator_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
END_FIELDS = (
    *("eos_token_id", "eot_token_id", "eom_token_id"),
    *("fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"),
)
# For filling in the middle, which lcc does not do; white space is removed by other tokenizers only.
NOTHING = (
    *("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "prefix_token_id"),
    *("suffix_token_id", "middle_token_id", "token_type_count", "remove_extra_whitespaces"),
)
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
# Ways to draw a token that lcc has not: they change which of the probable ones is drawn.
OTHER_SAMPLING = (
    *("sequence", "xtc_probability", "xtc_threshold", "penalty_last_n", "mirostat"),
    *("mirostat_tau", "mirostat_eta"),
)


def special_ids(fields: Fields) -> dict[str, int | None]:
    """Ids that begin, end and fill a text, as a configuration has them."""
    names = ("bos_token_id", "eos_token_id")
    found: dict[str, int | None] = {name: fields.take(PREFIX + name) for name in names}
    return {**found, "pad_token_id": fields.take(f"{PREFIX}padding_token_id")}


def text_files(file: GgufFile, fields: Fields) -> dict[str, bytes]:
    """Name -> content; generation_config.json alone where the file has no tokenizer.

    Raises:
        ModelError: a tokenizer, or a split, that lcc does not know.
    """
    kind = fields.take(f"{PREFIX}model")
    tokens: Sequence[str] = fields.take(f"{PREFIX}tokens") or []
    for name in NOTHING:
        fields.take(PREFIX + name)
    try:
        tokenizer = None if kind in NONE else _tokenizer(kind, tokens, fields)
    except ModelError as error:
        raise ModelError(f"{file.path.name}: {error}") from None
    kinds = fields.take(f"{PREFIX}token_type") or [NORMAL] * len(tokens)
    ends = {fields.take(PREFIX + name) for name in END_FIELDS} - {None}
    own = (CONTROL, USER_DEFINED)  # files of some age have ends among the latter
    control = {token for token, sort in zip(tokens, kinds, strict=True) if sort in own}
    ends |= {i for i, token in enumerate(tokens) if token in ENDS and token in control}
    ends -= _no_ends(tokens, control)
    files = {"generation_config.json": json_bytes(_generation(fields, sorted(ends)))}
    page = _special_texts(tokens, fields)
    templates = _templates(file, fields)
    whole = fields.take("tokenizer.huggingface.json")  # few files have it
    if tokenizer is None:
        return files
    files["tokenizer.json"] = (whole or tokenizer.to_str(pretty=True) + "\n").encode()
    return files | template_files(templates, page)


def _no_ends(tokens: Sequence[str], control: set[str]) -> set[int]:
    """Harmony ends a message by <|end|>, and an answer by <|return|> or <|call|>."""
    harmony = "<|return|>" in control and "<|call|>" in control
    solar = "<|flush|>" in control and "<|calls|>" in control
    return (
        {i for i, token in enumerate(tokens) if token == "<|end|>"} if harmony or solar else set()
    )


def _tokenizer(kind: str, tokens: Sequence[str], fields: Fields) -> Any:
    kinds = fields.take(f"{PREFIX}token_type") or [NORMAL] * len(tokens)
    if not tokens or len(kinds) != len(tokens):
        raise ModelError(
            f"tokenizer.ggml.tokens has {len(tokens)} entries and token_type {len(kinds)}, wanted "
            "as many"
        )
    unknown_kinds = sorted(set(kinds) - {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, 5, 6})
    if unknown_kinds:
        raise ModelError(f"tokenizer.ggml.token_type has {unknown_kinds[0]}, wanted 1 to 6")
    scores, merges = fields.take(f"{PREFIX}scores"), fields.take(f"{PREFIX}merges")
    pre = fields.take(f"{PREFIX}pre")
    space = fields.take(f"{PREFIX}add_space_prefix", kind == "llama")
    if kind == "gpt2":
        split = split_of(pre)
        begin, end = _around(tokens, fields, begins=split.begins)
        if space:
            raise ModelError("tokenizer.ggml.add_space_prefix is true, and gpt2 has no such space")
        return byte_level(Vocabulary(tokens, kinds, None, merges, begin, end), split)
    if kind != "llama":
        raise ModelError(
            f"tokenizer.ggml.model is {kind!r}, a tokenizer that lcc does not know; it knows gpt2 "
            "and llama"
        )
    begin, end = _around(tokens, fields, begins=True)
    unknown = fields.take(f"{PREFIX}unknown_token_id", 0)
    return sentencepiece(
        Vocabulary(tokens, kinds, scores, merges, begin, end, unknown),
        space_first=bool(space),
        by_order=fields.architecture.startswith("gemma"),
        strips_after=fields.architecture == "phi3",
    )


def _around(
    tokens: Sequence[str], fields: Fields, *, begins: bool
) -> tuple[Sequence[int], Sequence[int]]:
    """Ids put before and after a text."""
    usual = (
        {"bos_token_id": 1, "eos_token_id": 2} if fields.take(f"{PREFIX}model") == "llama" else {}
    )
    found = []
    for flag, name, default in (
        ("add_bos_token", "bos_token_id", begins),
        ("add_eos_token", "eos_token_id", False),
    ):
        wanted = fields.take(PREFIX + flag, default)
        token = fields.take(PREFIX + name, usual.get(name))
        if wanted and token is None and fields.take(PREFIX + flag):
            raise ModelError(f"tokenizer.ggml.{flag} is true and there is no {name}")
        if token is not None and not 0 <= token < len(tokens):
            raise ModelError(f"tokenizer.ggml.{name} is {token}, wanted 0 to {len(tokens) - 1}")
        found.append([token] if wanted and token is not None else [])
    if fields.take(f"{PREFIX}add_sep_token"):
        raise ModelError("tokenizer.ggml.add_sep_token is true; lcc separates no texts")
    return found[0], found[1]


def _special_texts(tokens: Sequence[str], fields: Fields) -> dict[str, Any]:
    ids = {name: fields.take(PREFIX + key) for name, key in SPECIAL.items()}
    for name, i in ids.items():
        if i is not None and not 0 <= i < len(tokens):
            raise ModelError(
                f"tokenizer.ggml.{SPECIAL[name]} is {i}, wanted 0 to {len(tokens) - 1}"
            )
    return {name: tokens[i] for name, i in ids.items() if i is not None}


def _templates(file: GgufFile, fields: Fields) -> str | dict[str, str] | None:
    """The chat template, or several by name."""
    start = "tokenizer.chat_template."
    named = {
        key.removeprefix(start): fields.take(key) for key in file.fields if key.startswith(start)
    }
    fields.take("tokenizer.chat_templates")  # the names once more
    single: str | None = fields.take("tokenizer.chat_template")
    if not named:
        return single
    return named if single is None else {"default": single, **named}


def _generation(fields: Fields, ends: Sequence[int]) -> dict[str, Any]:
    start = "general.sampling."
    for name in OTHER_SAMPLING:
        if fields.take(start + name) is not None:
            log.warning("%s%s is in the file, which lcc has not; it answers without", start, name)
    said = {name: fields.take(start + key) for key, name in SAMPLING.items()}
    drawn = {name: value for name, value in said.items() if value is not None}
    ids = {name: i for name, i in special_ids(fields).items() if i is not None}
    if drawn.get("temperature", 0) > 0:
        drawn["do_sample"] = True
    return {**drawn, **ids, "eos_token_id": list(ends)}
