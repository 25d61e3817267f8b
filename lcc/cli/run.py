"""Placeholder."""


def command() -> None:
    """Not here yet."""
