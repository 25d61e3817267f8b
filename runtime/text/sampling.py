"""Logits to a token: greedy, or drawn after temperature, top-k, top-p and min-p."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from lcc.errors import ConfigError

MASK = (1 << 64) - 1
# ln 2 in two parts: products of the first with small whole numbers are exact.
LN2_HIGH = float.fromhex("0x1.62e42feep-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen; the meaning of each is that of transformers.

    temperature         0 = the most probable token; otherwise logits are divided by it
    top_k               draw among the k most probable; 0 = all
    top_p               then among the fewest whose probabilities sum to at least p; 1 = all
    min_p               then among those at least min_p times as probable as the best; 0 = all
    repetition_penalty  logits of tokens of this call (prompt and answer) are divided by it where
                        positive, multiplied where negative; 1 = no penalty
    seed                None = another answer every time
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole = name in ("top_k", "seed")
            if value is not None and not isinstance(value, Integral if whole else Real):
                kind = "a whole number" if whole else "a number"
                raise ConfigError(f"{name} is {value!r}, wanted {kind}")
        checks = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "more than 0, at most 1"),
            "min_p": (0 <= self.min_p < 1, "0 or more, less than 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "more than 0"),
            "seed": (self.seed is None or self.seed >= 0, "0 or more"),
        }
        for name, (fits, wanted) in checks.items():
            if not fits:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted {wanted}")

    @classmethod
    def of(cls, defaults: Mapping[str, Any], **asked: Any) -> "Sampling":
        """What is asked for (None = not asked), else what generation_config.json says.

        As in transformers: without `do_sample` there, and without a temperature asked for, the
        answer is greedy.

        Raises:
            ConfigError: a value out of range, or a choice among tokens asked for a greedy answer.
        """
        options = {name: value for name, value in asked.items() if value is not None}
        cls(**options)  # says what is wrong with what was asked for
        drawing = ("temperature", "top_k", "top_p", "min_p")
        if options.get("temperature", 1 if defaults.get("do_sample") else 0) > 0:
            known = {name: defaults[name] for name in drawing if defaults.get(name) is not None}
            options = {"temperature": 1.0} | known | options
        else:
            for name in drawing[1:]:
                if name in options:
                    raise ConfigError(
                        f"{name} is {options[name]} but the answer is greedy; pass temperature > 0"
                    )
        if (penalty := defaults.get("repetition_penalty")) is not None:
            options = {"repetition_penalty": penalty} | options
        return cls(**options)


class Sampler:
    """Draws one token after another, with a random stream of its own.

    Every operation is one of IEEE 754 in a fixed order, see docs/format.md ("Drawing a token"):
    the same logits and seed give the same token in every runtime.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        seed = secrets.randbits(64) if sampling.seed is None else int(sampling.seed)
        self._state = seed & MASK

    def __call__(self, logits: np.ndarray, seen: np.ndarray) -> int:
        """The next token; logits [V] float32, seen [n] int64 ids of this call; both unchanged."""
        options = self._sampling
        if options.repetition_penalty != 1.0 and len(seen):
            logits, rows = logits.copy(), logits[seen]
            penalty = np.float32(options.repetition_penalty)
            logits[seen] = np.where(rows > 0, rows / penalty, rows * penalty)
        if options.temperature == 0:
            return int(logits.argmax())
        tokens, probabilities = self._candidates(logits)
        edges = probabilities.cumsum()
        place = np.searchsorted(edges, self._uniform() * edges[-1], side="right")
        return int(tokens[min(place, len(tokens) - 1)])

    def _candidates(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids that may be drawn, and weights: [n] int64, [n] float64, the best first."""
        options = self._sampling
        tokens = np.arange(len(logits))
        if 0 < options.top_k < len(logits):
            least = np.partition(logits, -options.top_k)[-options.top_k]
            tokens = np.flatnonzero(logits >= least)  # more than k where the last are equal
        # By probability, and by id where that is equal, so that the order is defined.
        tokens = tokens[np.lexsort((tokens, -logits[tokens]))]
        tokens = tokens[: options.top_k or None]
        behind = logits[tokens].astype(np.float64) - np.float64(logits[tokens[0]])  # best: 0
        with np.errstate(over="ignore"):  # a tiny temperature: -inf, which never comes
            weights = exact_exp(behind / options.temperature)
        if options.top_p < 1:
            sums = weights.cumsum()  # in order: `sum` would add in pairs
            before = np.concatenate(([0.0], sums[:-1]))  # of the better ones
            weights = weights[before < options.top_p * sums[-1]]
        weights = weights[weights >= options.min_p * weights[0]]
        return tokens[: len(weights)], weights

    def _uniform(self) -> float:
        """A number from 0 up to and without 1, of 53 bits: splitmix64."""
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return float((z ^ (z >> 31)) >> 11) * 2.0**-53


def exact_exp(x: np.ndarray) -> np.ndarray:
    """The power x of e, for x [n] float64 of 0 or less: the same bits everywhere.

    The last bit of `np.exp` depends on the CPU. Here x = k ln 2 + r, with the nearest k, and e^r is
    its series to the 13th power. Below -700 it is 0.
    """
    least = np.maximum(x, -700.0)
    k = np.floor(least * float.fromhex("0x1.71547652b82fep+0") + 0.5)
    r = (least - k * LN2_HIGH) - k * LN2_LOW
    total = np.ones_like(r)
    for i in range(13, 0, -1):
        total = total * r / i + 1.0
    return np.where(x >= -700.0, np.ldexp(total, k.astype(np.int64)), 0.0)
