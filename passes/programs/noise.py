"""Random numbers from integers alone, so that every target draws the same."""

import torch
from torch import Tensor

PRIME = (1 << 31) - 1  # products of two smaller numbers fit into 63 bits
_ROUNDS = ((48271, 11), (69621, 1013904223), (39373, 12345))  # factor, summand of each round


def noise(position: Tensor, layer: Tensor, seed: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), one for each token position, KV head and layer.

    position    [Hkv, S] int64
    layer, seed [1] int32
    returns     [Hkv, S] float32; the same for the same token whatever came between (a save, a
                rewind, another chunk size), for it is a hash and no stream

    Three rounds of x -> x^2 + factor * x + summand modulo 2^31 - 1; the square mixes the bits that
    a linear congruence (Lehmer 1949) leaves in lattices.
    """
    head = torch.arange(position.shape[0])[:, None]
    place = layer.long() * 1009 + head + seed.long() * 7919
    mixed = (position + place * 104729) % PRIME
    for factor, summand in _ROUNDS:
        mixed = (mixed * mixed + mixed * factor + summand) % PRIME
    return mixed.float() / PRIME
