"""Sums of four products of bytes in each lane: the instruction of each level of CPU for them."""

from typing import Any

from lcc.targets.tvm_cpu.tir import Tiles, fill, script

# Products of pairs of 16-bit numbers, added up: lanes -> LLVM's name of x86's instruction.
_PAIRS = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}


def dot(sums: Any, weights: Any, inputs: Any, tiles: Tiles) -> Any:
    """sums[i] + sum over b < 4 of byte b of weights[i] * byte b of inputs; exact in 32 bits.

    sums        int32 vector of `tiles.lanes`
    weights     the same of words of four unsigned bytes
    inputs      int32, a word of four signed bytes
    """
    return {"vnni": _vnni, "pairs": _pairs, "plain": _plain}[tiles.bytes](
        sums, weights, fill(inputs, tiles.lanes), tiles.lanes
    )


def _vnni(sums: Any, weights: Any, inputs: Any, lanes: int) -> Any:
    """One instruction, AVX-512 VNNI's `vpdpbusd`."""
    T = script()
    name, kind = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"int8x{4 * lanes}"
    four = T.reinterpret(kind, weights), T.reinterpret(kind, inputs)
    return T.call_llvm_pure_intrin(f"int32x{lanes}", name, sums, *four)


def _pairs(sums: Any, weights: Any, inputs: Any, lanes: int) -> Any:
    """Even and odd bytes as numbers of 16 bits, in which no sum of two products is cut off."""
    T, kind = script(), f"int16x{2 * lanes}"
    eight, low = fill(T.int16(8), 2 * lanes), fill(T.int16(255), 2 * lanes)
    w, x = T.reinterpret(kind, weights), T.reinterpret(kind, inputs)
    even = w & low, (x << eight) >> eight
    odd = (w >> eight) & low, x >> eight
    for pair in (even, odd):
        sums = sums + T.call_llvm_pure_intrin(f"int32x{lanes}", _PAIRS[lanes], *pair)
    return sums


def _plain(sums: Any, weights: Any, inputs: Any, lanes: int) -> Any:
    """In 32 bits, on any CPU."""
    T = script()
    for byte in range(4):
        high, down = fill(T.int32(24 - 8 * byte), lanes), fill(T.int32(24), lanes)
        w = (weights >> fill(T.int32(8 * byte), lanes)) & fill(T.int32(255), lanes)
        sums = sums + w * ((inputs << high) >> down)
    return sums
