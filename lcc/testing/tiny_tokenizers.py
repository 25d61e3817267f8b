"""Small tokenizers of every kind that has tables, in the published forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lcc.artifact.golden_text import PARAGRAPH

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MARK = "\u2581"
MORE = (
    "def f(x):\n    return {'a': x[0] + 1}  # 12345 ok\n\n\tIt's WE'LL don't 中文字 日本語 한국어 "
    "naïve café e\u0301 Straße 😀 ½ ² ١٢٣ привет мир    \n  \r\n>>>= != == ... --- ((()))"
)
TEXT = [PARAGRAPH, MORE, MORE.upper(), PARAGRAPH.replace(" ", "  ")]
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _trained(size: int = 500, **options: Any) -> Tokenizer:
    """Bytes, merged where the text has them together."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def gpt2() -> Tokenizer:
    """GPT-2: bytes behind its pattern."""
    return _trained()


def prefix_space() -> Tokenizer:
    """A space in front of every text."""
    from tokenizers import pre_tokenizers

    tokenizer = _trained()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def qwen() -> Tokenizer:
    """Qwen: NFC, its pattern, tokens that are not special."""
    from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers

    tokenizer = _trained()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<tool>>")])
    return tokenizer


def smollm() -> Tokenizer:
    """SmolLM: single digits first, and bytes without a token."""
    import json

    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = _trained()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    page = json.loads(tokenizer.to_str())
    merged = {each for pair in page["model"]["merges"] for each in pair}
    for letter in ("ô", "õ", "À"):
        if letter not in merged:
            del page["model"]["vocab"][letter]
    return Tokenizer.from_str(json.dumps(page))


def llama3() -> Tokenizer:
    """Llama 3: a word of the vocabulary is its token, whatever the merges say."""
    import json

    from tokenizers import Tokenizer

    page = json.loads(_trained().to_str())
    page["model"]["ignore_merges"] = True
    page["model"]["merges"] = page["model"]["merges"][:100]
    page["normalizer"] = {"type": "NFKC"}
    return Tokenizer.from_str(json.dumps(page))


def _letters(*, byte_fallback: bool = True, **options: Any) -> Tokenizer:
    """SentencePiece-like: letters, marked spaces, no pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(
        models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=True, **options)
    )
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256) if byte_fallback)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    text = [line[:300] for each in TEXT[:2] for line in each.split("\n")]
    tokenizer.train_from_iterator(text, trainer)
    tokenizer = _without_bytes_added(tokenizer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _without_bytes_added(tokenizer: Tokenizer) -> Tokenizer:
    import json

    from tokenizers import Tokenizer

    page = json.loads(tokenizer.to_str())
    page["added_tokens"] = [x for x in page["added_tokens"] if not x["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(page))


def llama2() -> Tokenizer:
    """Llama 2: a marked space in front of every stretch of text."""
    from tokenizers import decoders, normalizers

    tokenizer = _letters()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]
    )
    shown = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*shown, decoders.Strip(" ", 1, 0)])
    return tokenizer


def gemma() -> Tokenizer:
    """Gemma: no space in front, a split that never finds anything."""
    from tokenizers import pre_tokenizers

    tokenizer = _letters()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


def phi3() -> Tokenizer:
    """Phi-3: control tokens take the white space behind them."""
    from tokenizers import AddedToken

    tokenizer = llama2()
    tokenizer.add_special_tokens([AddedToken("<|user|>", rstrip=True, normalized=False)])
    return tokenizer


def _metaspace(scheme: str, *, split: bool) -> Tokenizer:
    from tokenizers import decoders, pre_tokenizers

    tokenizer = _letters()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(MARK, scheme, split)
    tokenizer.decoder = decoders.Metaspace(MARK, scheme, split)
    return tokenizer


def unknown_letters() -> Tokenizer:
    """Letters without a token are unknown, and melt into one."""
    return _letters(byte_fallback=False)


def strict_added() -> Tokenizer:
    """Added tokens with every condition."""
    from tokenizers import AddedToken, normalizers

    tokenizer = _trained()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("Harbour", single_word=True), AddedToken("x=", lstrip=True)])
    return tokenizer


def pieces() -> Tokenizer:
    """A chain of splits of all behaviours."""
    from tokenizers import Regex, pre_tokenizers

    tokenizer = _trained()
    splits = [
        pre_tokenizers.Split("\n", "merged_with_next"),
        pre_tokenizers.Split(Regex(r"[,.;]"), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"\p{Lu}"), "contiguous"),
        pre_tokenizers.Split("0", "removed"),
        pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), "removed", invert=True),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Punctuation("isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    **{each.__name__: each for each in (gpt2, prefix_space, qwen, smollm, llama3, llama2, gemma)},
    **{each.__name__: each for each in (phi3, unknown_letters, strict_added, pieces)},
    "metaspace": lambda: _metaspace("always", split=True),
    "metaspace_first": lambda: _metaspace("first", split=False),
    "metaspace_never": lambda: _metaspace("never", split=True),
}
"""Name of a kind -> a tokenizer of it."""
