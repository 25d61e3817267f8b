"""Options that several policies have, and their limits."""

from lcc.errors import ConfigError


def check_share(name: str, value: float) -> None:
    """Refuse what is no share: wanted 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}, wanted 0 to 1")


def check_span(name: str, value: int) -> None:
    """Refuse a number of slots that has no middle: wanted 1, 3, 5, ..."""
    if value < 1 or value % 2 == 0:
        raise ConfigError(f"{name} is {value}, wanted an odd number of slots")


def check_size(name: str, value: int, most: int | None = None) -> None:
    """Refuse a negative number, and one that is larger than `most`."""
    if value < 0 or (most is not None and value > most):
        wanted = "0 or more" if most is None else f"0 to {most}"
        raise ConfigError(f"{name} is {value}, wanted {wanted}")
