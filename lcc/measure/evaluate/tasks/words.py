"""Keys and values to hide: words, numbers, identifiers, as RULER draws them."""

import functools
import random
import uuid
from collections.abc import Callable

from lcc.env import needs_extra


@functools.cache
def word_list(*kinds: str) -> list[str]:
    """English words of these kinds (noun, adjective, verb) in one sorted list, each once."""
    with needs_extra("eval"):
        import wonderwords.random_word as words
    return sorted({w for kind in kinds for w in words._get_words_from_text_file(f"{kind}list.txt")})


def word(draw: random.Random) -> str:
    """Draw an adjective and a noun: "elated-environment"."""
    return f"{draw.choice(word_list('adjective'))}-{draw.choice(word_list('noun'))}"


def number(draw: random.Random) -> str:
    """Draw seven digits, the first not 0."""
    return str(draw.randint(1_000_000, 9_999_999))


def identifier(draw: random.Random) -> str:
    """Draw a UUID of version 4."""
    return str(uuid.UUID(int=draw.getrandbits(128), version=4))


def distinct(draw: Callable[[], str], count: int, *, unlike: tuple[str, ...] = ()) -> list[str]:
    """Draw `count` different ones, none of which is in `unlike`."""
    found: dict[str, None] = {}
    while len(found) < count:
        each = draw()
        if each not in unlike:
            found[each] = None
    return list(found)
