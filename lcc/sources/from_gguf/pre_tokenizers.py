"""How a text is split before merging, by the name that a GGUF file gives it.

The merges of a vocabulary were learned inside such pieces; another split gives other ids. A name
that is not in the table is an error: there is no split that fits them all.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
OTHER = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (  # TAIL: what may follow a word
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+TAIL|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*TAIL"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = f"{CONTRACTIONS}|{WORD}|\\p{{N}}{{1,3}}|{OTHER}|{ENDS}"
QWEN2 = f"{CONTRACTIONS}|{WORD}|\\p{{N}}|{OTHER}|{ENDS}"
SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
TEKKEN = f"{CASED.replace('TAIL', '')}|\\p{{N}}|{SLASHED}|{ENDS}"
GPT4O = f"{CASED.replace('TAIL', CONTRACTIONS + '?')}|\\p{{N}}{{1,3}}|{SLASHED}|{ENDS}"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
THREES = r"[0-9][0-9][0-9]"
DIGIT, UP_TO_THREE = r"\p{N}", r"\p{N}{1,3}"
HAN, HAN_KANA = "[一-龥ࠀ-一가-퟿]+", "[一-龥぀-ゟ゠-ヿ]+"
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{ENDS}"
)
# Letters that have a case, and what else the vocabulary of DeepSeek LLM calls a letter.
LETTERS = r"\s?[\p{Lu}\p{Ll}\p{Lt}]+"


@dataclass(frozen=True)
class Split:
    """How a text is split.

    patterns        applied one after the other, each to the pieces of the one before
    ignore_merges   a piece that is in the vocabulary is one token, whatever the merges say
    begins          a text begins with the token for that, where the file does not say
    composed        letters and their accents are put together first (NFC)
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    begins: bool = False
    composed: bool = False


_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
    r"|\s+(?!\S)|\s+"
)
_QWEN35 = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{ENDS}"
)
_SEED = rf"{CONTRACTIONS}|{WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{ENDS}"
_EXAONE_MOE = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_DEEPSEEK = ("[\r\n]", LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", HAN, DIGIT)

NAMED: dict[Split, str] = {
    Split((GPT2,)): "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 "
    "mellum jina-es jina-de jina-v2-es jina-v2-de modern-bert",
    Split((DIGIT, GPT2)): "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
    Split((LLAMA3,), ignore_merges=True, begins=True): "llama3 llama-v3 llama-bpe falcon3 "
    "falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    Split((LLAMA3,)): "dbrx smaug-bpe chatglm-bpe glm4",
    Split((QWEN2,), composed=True): "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez",
    Split((QWEN2,)): "stablelm2 hunyuan solar-open grok-2",
    Split((_QWEN35,), composed=True): "qwen35",
    Split((UP_TO_THREE, HAN_KANA, DEEPSEEK3)): "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
    Split(_DEEPSEEK): "deepseek-llm",
    Split(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN, DIGIT)): "deepseek-coder",
    Split((GPT4O,)): "gpt-4o llama4 kanana2 talkie minimax-m2",
    Split((r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O)): "tiny_aya",
    Split((TEKKEN,), ignore_merges=True, begins=True): "tekken",
    Split((BLOOM,)): "bloom poro-chat gpt3-finnish",
    Split((BLOOM, DIGIT)): "viking",
    Split((PUNCTUATION, GPT2, r"\p{N}+", THREES)): "default",
    Split((PUNCTUATION, GPT2, THREES)): "falcon",
    Split((_SEED,)): "seed-coder",
    Split((_BAILING,)): "bailingmoe bailingmoe2 llada-moe",
    Split((_EXAONE_MOE,)): "exaone-moe",
}
SPLITS = {name: split for split, names in NAMED.items() for name in names.split()}
"""`tokenizer.ggml.pre` -> how its texts are split."""
