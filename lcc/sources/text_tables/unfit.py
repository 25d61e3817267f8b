"""Why a tokenizer has no tables."""


class Unfit(Exception):
    """A rule that the tables have no place for; the message names it."""
