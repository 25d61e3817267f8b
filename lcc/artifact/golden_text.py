"""What goldens read: ids that are the same on every machine, and a paragraph of English."""

from collections.abc import Collection, Iterator

PARAGRAPH = """\
The harbour office opened at six, an hour before the first ferry. Marta Lindqvist kept the log: \
every ship, its cargo, its master, and the depth of water at the second pier. On the morning of \
the ninth she wrote that the brig Halcyon had come in without her pilot. Who had brought her \
through the channel? Nobody on board would say. The cook, a tall man called Owen Pryce, asked for \
coffee and a doctor. He had walked to the office with a lantern, although the sun was up, and he \
set it on the counter between them as if it were a receipt.

"You will want to know about the pilot," he said. "We never had one." Marta turned back three \
pages. The pilot's name was there, in her own hand, next to the hour at which his boat had left: \
half past two. She read it aloud. The cook nodded, drank his coffee, and counted out eleven silver \
coins. They were wet. They were also forty years old, and the king on them had never worn a crown \
in this town. She wrote that down, too, because it was the rule to write down everything, and \
because the doctor, when he came, did not ask.
"""

# A linear congruential generator (Knuth, The Art of Computer Programming, volume 2, 3.3.4).
_MULTIPLIER, _INCREMENT, _MODULUS = 6364136223846793005, 1442695040888963407, 1 << 64


def drawn_ids(vocab_size: int, without: Collection[int]) -> Iterator[int]:
    """Ids of a vocabulary, evenly drawn, without end: always the same ones."""
    if not set(range(vocab_size)) - set(without):
        raise ValueError(f"no id of {vocab_size} is left to draw")
    state = 1
    while True:
        state = (state * _MULTIPLIER + _INCREMENT) % _MODULUS
        token = (state >> 33) % vocab_size
        if token not in without:
            yield token
