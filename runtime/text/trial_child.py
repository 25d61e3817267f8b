"""Reads a tokenizer.json from standard input and uses it, within limits: see `trial.py`.

Exit code 0: it may be used. 1: the library refuses it, or it takes too much memory; standard output
says so. Anything else is the end of the process.
"""

import os
import sys
from typing import NoReturn

MEMORY = 3 << 29  # bytes of addresses
SECONDS = 10  # of the processor
TEXTS = (
    "The quick brown fox jumps over the lazy dog, 12345 times.\n\n\tdef f(x): return x ** 2\r\n",
    "中文没有空格。日本語 한국어 привет मनुष्य e\u0301\u0323 ﬁ Ⅷ ½ ʼ\u200d\u00a0\u3000 😀👩🏽",
    "<s> </s> <|im_start|>system\nYou<|im_end|> [INST] <unk> <0x0A> ▁▁ Ġ <<>> \ufffd\x00\x7f\x85",
    *(each * 2000 for each in ("a", " ", "1", "\n", "aB", "e\u0301", "中", "! ")),
)


def _refuse(words: str) -> NoReturn:
    print(words, flush=True)
    os._exit(1)


def main() -> None:
    """Read, encode, decode."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # a system without: the time is limited from outside
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(sys.stdin.buffer.read().decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for text in TEXTS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.decode(ids, skip_special_tokens=False)
        tokenizer.encode("a b\nc, 1").word_ids  # noqa: B018
        tokenizer.to_str()
    except MemoryError:
        _refuse(f"the tokenizers library takes more than {MEMORY / 2**30} GB for it")
    except Exception as error:  # the library raises Exception itself
        _refuse(str(error))
    except BaseException as error:  # a panic that it could catch
        _refuse(f"the tokenizers library panics: {error}")


if __name__ == "__main__":
    main()
