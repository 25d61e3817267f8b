"""The native tokenizer against the tokenizers library: equal ids, speed, memory. Linux only.

python docs/measure/native_tokenizer.py qwen=tokenizer.json smollm2=smollm2 [--texts DIR]

Texts: Python's standard library, the message catalogues of this machine in all their languages, all
blocks of Unicode, and the .txt files of a folder; then strings drawn at random. Ids are compared
for each document, fed at once and in pieces, and decoded. The speed is that of all of them in one
thread, in seconds of the processor, library and native one after the other in this run.
"""

import argparse
import gettext
import os
import random
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lcc.sources.from_gguf.load import GgufModel
from lcc.sources.locate import locate
from lcc.sources.text_tables.build import build
from lcc.testing.native_tokenizer import NativeTokenizer, build_encode_lines

MOST_SOURCE, MOST_LANGUAGE, LANGUAGES = 4_000_000, 60_000, 90  # characters; characters; languages
LETTERS = (
    "aAbestTdDlLmrvz '’\"\t\n\r 019Ⅷ½.,!?-_/\\|<>(){}#$=@`"
    "éßſ中あア한\u0301\u0323\u200d\xa0\u3000😀▁"
)
DOCUMENT = 100_000  # characters


def library_sources() -> Iterator[str]:
    """Python's own sources."""
    left = MOST_SOURCE
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if left > 0:
            yield text
        left -= len(text)


def translations() -> Iterator[str]:
    """Messages in other languages, so many characters of each."""
    languages = sorted(Path("/usr/share/locale").glob("*/LC_MESSAGES"))
    step = max(len(languages) // LANGUAGES, 1)
    for folder in languages[::step]:
        found = ""
        for path in sorted(folder.glob("*.mo")):
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
            found += "\n".join(text for text in catalogue.values() if isinstance(text, str))
            if len(found) > MOST_LANGUAGE:
                break
        yield found[:MOST_LANGUAGE]


def unicode_words() -> Iterator[str]:
    """Words of letters of one block, of every block."""
    draw = random.Random(1)
    for start in (*range(0, 0xD800, 128), *range(0xE000, 0x20000, 128)):
        letters = [chr(i) for i in range(start, start + 128)]
        words = ("".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(120))
        yield " ".join(words)


def documents(folder: Path | None) -> list[str]:
    """All texts, in parts of at most DOCUMENT characters."""
    texts = [*library_sources(), *translations(), *unicode_words()]
    if folder is not None:
        texts += [
            path.read_text(encoding="utf-8", errors="replace")
            for path in sorted(folder.glob("*.txt"))
        ]
    return [text[i : i + DOCUMENT] for text in texts for i in range(0, len(text), DOCUMENT)]


def drawn(count: int, added: list[str]) -> Iterator[str]:
    """Strings of letters, runs, any characters, and added tokens."""
    draw = random.Random(2)
    for _ in range(count):
        parts = list[str]()
        for _ in range(draw.randint(0, 16)):
            kind = draw.random()
            if kind < 0.6:
                parts.append(draw.choice(LETTERS))
            elif kind < 0.75:
                parts.append(draw.choice(LETTERS) * draw.randint(2, 40))
            elif kind < 0.95:
                low, high = draw.choice(((0, 0x3000), (0x3000, 0xD800), (0xE000, 0x20000)))
                parts.append(chr(draw.randrange(low, high)))
            else:
                parts.append(draw.choice(added))
        yield "".join(parts)


def tokenizer_page(source: str) -> str:
    """`tokenizer.json` of a file, a GGUF file, `package:NAME` or `smollm2`."""
    if source.endswith(".json"):
        return Path(source).read_text(encoding="utf-8")
    path = Path(source) if source.endswith(".gguf") else locate(source).gguf
    if path is None:
        raise SystemExit(f"{source}: wanted a tokenizer.json or a GGUF file")
    return GgufModel(path, source).files["tokenizer.json"].decode()


def differences(native: NativeTokenizer, backend, texts: list[str]) -> int:  # type: ignore[no-untyped-def]
    """Texts whose ids differ, fed at once or in pieces, or whose ids are shown otherwise."""
    wanted = [each.ids for each in backend.encode_batch_fast(texts, add_special_tokens=False)]
    shown = backend.decode_batch(wanted, skip_special_tokens=True)
    one, pieces = native.encode(texts), native.encode(texts, piece=-1)
    back = native.decode(wanted, special=False)
    rows = zip(wanted, one, pieces, shown, back, strict=True)
    return sum(a != b or a != c or d != e for a, b, c, d, e in rows)


def main() -> None:
    """Print a row of a table for each tokenizer."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "tokenizers", nargs="+", help="NAME=tokenizer.json, .gguf, package:NAME or smollm2"
    )
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--strings", type=int, default=100_000)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251  # before the library is loaded
    from tokenizers import Tokenizer

    folder = Path(tempfile.mkdtemp())
    program = build_encode_lines(folder, "-O2", "-DNDEBUG")
    texts = documents(options.texts)
    size = sum(len(text.encode()) for text in texts) / 1e6
    (folder / "all.txt").write_text("".join(texts), encoding="utf-8", newline="")
    print(f"{size:.1f} MB in {len(texts)} documents, {options.strings} strings", file=sys.stderr)
    print("| tokenizer | ids | text.bin | differences | library | native | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for each in options.tokenizers:
        name, _, source = each.partition("=")
        backend = Tokenizer.from_str(tokenizer_page(source))
        backend.no_truncation()
        backend.no_padding()
        data = build(backend)
        (folder / "text.bin").write_bytes(data)
        native = NativeTokenizer(program, folder / "text.bin")
        wrong = sum(
            differences(native, backend, texts[i : i + 100]) for i in range(0, len(texts), 100)
        )
        added = [token.content for token in backend.get_added_tokens_decoder().values()]
        strings = list(drawn(options.strings, added or ["<s>"]))
        for i in range(0, len(strings), 5000):
            wrong += differences(native, backend, strings[i : i + 5000])
        start = time.process_time()
        for text in texts:
            backend.encode_batch_fast([text], add_special_tokens=False)
        library = size / (time.process_time() - start)
        seconds, _ = native.time(folder / "all.txt")
        print(
            f"| {name} | {backend.get_vocab_size():,} | {len(data) / 1e6:.1f} MB | {wrong} "
            f"| {library:.1f} MB/s | {size / seconds:.1f} MB/s "
            f"| {native.resident_kb() / 1024:.1f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
