"""What the tests of tasks count and hide in."""

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def haystack() -> list[str]:
    """Ninety sentences of different lengths, each of which occurs once."""
    return [f"Sentence {number} says {'so ' * (number % 7)}much." for number in range(90)]


@pytest.fixture(scope="session")
def bpe(haystack: list[str]) -> Callable[[str], int]:
    """Counts tokens as a model's tokenizer does: byte pairs across words' beginnings, digits."""
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([topics["types"], *haystack], trainer)
    return lambda text: len(tokenizer.encode(text).ids)
