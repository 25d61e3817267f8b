"""Hash tables that are looked up where they lie: open addressing, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LOAD = 0.7


def slots_for(count: int) -> int:
    """Slots of a table: at least one of them stays empty."""
    return int(count / LOAD) + 2


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Spread the bits of uint32 numbers."""
    x = numbers.astype(np.uint32)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x2C1B3C6D)
    x ^= x >> np.uint32(12)
    x *= np.uint32(0x297A2D39)
    x ^= x >> np.uint32(15)
    return x


def hash_words(words: Sequence[bytes]) -> np.ndarray:
    """FNV-1a of each word, mixed."""
    lengths = np.array([len(each) for each in words], np.int64)
    starts = np.cumsum(lengths) - lengths
    letters = np.frombuffer(b"".join(words), np.uint8)
    found = np.full(len(words), 2166136261, np.uint32)
    left = np.flatnonzero(lengths)
    for place in range(int(lengths.max(initial=0))):
        left = left[lengths[left] > place]
        found[left] = (found[left] ^ letters[starts[left] + place]) * np.uint32(16777619)
    return mixed(found)


def hash_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The hash of two ids."""
    one = first.astype(np.uint32) * np.uint32(0x9E3779B1)
    return mixed(one + second.astype(np.uint32) * np.uint32(0x85EBCA77))


def homes(hashes: np.ndarray, slots: int) -> np.ndarray:
    """Where each looks first."""
    return (hashes.astype(np.uint64) * np.uint64(slots)) >> np.uint64(32)


def placed(hashes: np.ndarray, slots: int) -> np.ndarray:
    """[slots] int64: which item lies in each slot, -1 = none."""
    table = np.full(slots, -1, np.int64)
    left, wanted = np.arange(len(hashes)), homes(hashes, slots).astype(np.int64)
    while len(left):
        free = table[wanted] < 0
        takers, first = np.unique(wanted[free], return_index=True)
        winners = left[free][first]
        table[takers] = winners
        keep = ~np.isin(left, winners)
        left, wanted = left[keep], (wanted[keep] + 1) % slots
    return table
