import math

import numpy as np
import pytest

from lcc.errors import ConfigError
from lcc.runtime.text.sampling import Sampler, Sampling, exact_exp

LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.3, 0.15], np.float32))
NOTHING = np.array([], np.int64)


def frequencies(draws: int = 4000, seen: np.ndarray = NOTHING, **options: float) -> list[float]:
    sampler = Sampler(Sampling(seed=0, **options))
    counts = np.bincount([sampler(LOGITS, seen) for _ in range(draws)], minlength=5)
    return (counts / draws).tolist()


def test_greedy_is_the_default():
    assert Sampler(Sampling())(LOGITS, NOTHING) == 1
    assert Sampling.of({}) == Sampling()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.05, 0.4, 0.1, 0.3, 0.15]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"top_k": 99}, [0.05, 0.4, 0.1, 0.3, 0.15]),
        ({"top_p": 0.69}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.71}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
        ({"top_p": 0.01}, [0, 1, 0, 0, 0]),
        ({"min_p": 0.3}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
        ({"min_p": 0.3, "top_k": 2}, [0, 4 / 7, 0, 3 / 7, 0]),
        (
            {"temperature": 0.5},
            [0.0025 / 0.285, 0.16 / 0.285, 0.01 / 0.285, 0.09 / 0.285, 0.0225 / 0.285],
        ),
    ],
)
def test_drawn_frequencies(options, expected):
    got = frequencies(**({"temperature": 1.0} | options))
    assert got == pytest.approx(expected, abs=0.03)
    assert [f == 0 for f in got] == [e == 0 for e in expected]


def test_repetition_penalty_as_in_transformers():
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    assert Sampler(Sampling(repetition_penalty=1.2))(logits, np.array([0])) == 1
    below = np.array([-1.0, -1.1], np.float32)
    assert Sampler(Sampling(repetition_penalty=1.2))(below, np.array([0])) == 1
    assert Sampler(Sampling(repetition_penalty=1.2))(logits, NOTHING) == 0
    assert logits.tolist() == pytest.approx([2.0, 1.9, -1.0])  # unchanged


def test_a_tiny_temperature_is_nearly_greedy():
    for temperature in (1e-310, 5e-324):
        for more in ({}, {"top_p": 0.9}, {"min_p": 0.1}):
            sampler = Sampler(Sampling(temperature=temperature, seed=0, **more))
            assert {sampler(LOGITS * scale, NOTHING) for scale in (1, 40, -1)} == {1, 0}


def test_seed():
    draw = [Sampler(Sampling(temperature=1, seed=s)) for s in (3, 3, 4)]
    a, b, c = ([sampler(LOGITS, NOTHING) for _ in range(50)] for sampler in draw)
    assert a == b != c


def test_the_stream_is_splitmix64() -> None:
    # Of equal logits the place of the token is the number that was drawn.
    sampler = Sampler(Sampling(temperature=1, seed=1234567))
    # The first results of splitmix64 from this seed, as other implementations have them.
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    got = [sampler(np.zeros(1 << 16, np.float32), NOTHING) for _ in wanted]
    assert got == [each >> 48 for each in wanted]


def test_exact_exp_is_exp_but_for_the_last_bits() -> None:
    x = -np.concatenate([[0.0], np.logspace(-300, np.log10(699.9), 5000)])
    np.testing.assert_allclose(exact_exp(x), np.exp(x), rtol=4e-16)
    assert exact_exp(np.array([0.0, -700.5, -np.inf])).tolist() == [1.0, 0.0, 0.0]
    # These bits are those of every machine, and of the native runtime.
    bits = [float(each).hex() for each in exact_exp(np.array([-0.1, -1.0, -17.3]))]
    assert bits == ["0x1.cf46d99d52b3ap-1", "0x1.78b56362cef38p-2", "0x1.0772c096d61b7p-25"]


def test_top_k_of_equal_logits_are_the_lowest_ids() -> None:
    logits = np.array([1, 2, 1, 1, 1], np.float32)
    sampler = Sampler(Sampling(temperature=9, top_k=3, seed=0))
    assert {sampler(logits, NOTHING) for _ in range(200)} == {0, 1, 2}


def test_draws_from_a_large_vocabulary_have_a_defined_order():
    logits = np.zeros(1000, np.float32)
    sampler = Sampler(Sampling(temperature=1, top_p=0.01, top_k=999, seed=0))
    drawn = {sampler(logits, NOTHING) for _ in range(300)}  # of equals, those of the lowest ids
    assert len(drawn) == 10
    assert max(drawn) <= 10  # top_k leaves out one of the thousand


def test_defaults_and_what_is_asked():
    defaults = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}
    assert Sampling.of(defaults) == Sampling(temperature=0.6, top_p=0.9, repetition_penalty=1.1)
    assert Sampling.of(defaults, temperature=0).temperature == 0
    assert Sampling.of(defaults, temperature=0.2, top_k=5, seed=1) == Sampling(
        temperature=0.2, top_p=0.9, top_k=5, repetition_penalty=1.1, seed=1
    )
    assert Sampling.of({"temperature": 0.6}) == Sampling()
    assert Sampling.of({"do_sample": True}).temperature == 1
    with pytest.raises(ConfigError, match="top_k is 5 but the answer is greedy"):
        Sampling.of({}, top_k=5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.5),
        ("min_p", 1),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("temperature", math.nan),
        ("temperature", "0.5"),
        ("top_k", 2.5),
    ],
)
def test_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"{name} is "):
        Sampling(**{name: value})
    with pytest.raises(ConfigError, match=f"{name} is "):
        Sampling.of({"do_sample": True}, **{name: value})
