"""Sums of four products of bytes in each lane: the instruction of each level of CPU for them."""

from typing import Any

from lcc.targets.tvm_cpu.tir import Tiles, fill, script

_LANES = {4: "sse2", 8: "avx2", 16: "avx512"}  # of x86's instructions


def dot(sums: Any, weights: Any, inputs: Any, tiles: Tiles) -> Any:
    """sums[i] + sum over b < 4 of byte b of weights[i] * byte b of inputs; exact in 32 bits.

    sums        int32 vector of `tiles.lanes`
    weights     the same of words of four bytes, unsigned on x86 and signed on Arm
    inputs      int32, a word of four signed bytes
    """
    lanes = tiles.lanes
    if tiles.in_16_bits:
        return _pairs(sums, weights, _halves_of(fill(inputs, lanes), lanes), lanes)
    made = {"vnni": _vnni, "dotprod": _dotprod, "long": _long}[tiles.bytes]
    return made(sums, weights, fill(inputs, lanes), lanes)


def dot_16(sums: Any, weights: Any, inputs: list, tiles: Tiles) -> Any:
    """The same of inputs in 16 bits, where `tiles.in_16_bits`.

    inputs      two words: what bytes 0 and 2 of a weight are multiplied with, and bytes 1 and 3
    """
    return _pairs(sums, weights, [fill(each, tiles.lanes) for each in inputs], tiles.lanes)


def dot_small(sums: Any, weights: Any, inputs: Any, tiles: Tiles) -> Any:
    """The same of weights from 0 to 15, eight times in 16 bits, where `tiles.bytes` is maddubs.

    sums        int16 vector of 2 * `tiles.lanes`, two for each word: see `widened`
    """
    T, lanes = script(), tiles.lanes
    name = {8: "avx2.pmadd.ub.sw", 16: "avx512.pmaddubs.w.512"}[lanes]
    four = [T.reinterpret(f"int8x{4 * lanes}", each) for each in (weights, fill(inputs, lanes))]
    return sums + T.call_llvm_pure_intrin(f"int16x{2 * lanes}", f"llvm.x86.{name}", *four)


def widened(sums: Any, tiles: Tiles) -> Any:
    """Sums of `dot_small` as those of `dot`."""
    return dot_pairs(sums, fill(script().int16(1), 2 * tiles.lanes), tiles.lanes)


def dot_pairs(left: Any, right: Any, lanes: int) -> Any:
    """Sums of the products of two neighbours, 16 bits -> 32."""
    name = f"llvm.x86.{_LANES[lanes]}." + ("pmaddw.d.512" if lanes == 16 else "pmadd.wd")
    return script().call_llvm_pure_intrin(f"int32x{lanes}", name, left, right)


def byte_of(word: Any, shift: Any, tiles: Tiles) -> Any:
    """The byte of a word of weights that begins at bit `shift`, int32."""
    T = script()
    if tiles.least_byte == 0:
        return (word >> shift) & T.int32(255)
    return (word << (T.int32(24) - shift)) >> T.int32(24)


def _vnni(sums: Any, weights: Any, inputs: Any, lanes: int) -> Any:
    """One instruction, AVX-512 VNNI's `vpdpbusd`."""
    T = script()
    name, kind = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"int8x{4 * lanes}"
    four = T.reinterpret(kind, weights), T.reinterpret(kind, inputs)
    return T.call_llvm_pure_intrin(f"int32x{lanes}", name, sums, *four)


def _pairs(sums: Any, weights: Any, inputs: list, lanes: int) -> Any:
    """Even and odd bytes as numbers of 16 bits, in which no sum of two products is cut off."""
    T, kind = script(), f"int16x{2 * lanes}"
    w = T.reinterpret(kind, weights)
    parts = w & fill(T.int16(255), 2 * lanes), T.reinterpret(kind, _high_bytes(weights, lanes))
    for part, x in zip(parts, inputs, strict=True):
        sums = sums + dot_pairs(part, T.reinterpret(kind, x), lanes)
    return sums


def _high_bytes(words: Any, lanes: int) -> Any:
    """Bytes 1 and 3 of words where bytes 0 and 2 are."""
    T = script()
    return (words >> fill(T.int32(8), lanes)) & fill(T.int32(0x00FF00FF), lanes)


def _halves_of(words: Any, lanes: int) -> list:
    """Signed bytes 0 and 2 of words in 16 bits, and bytes 1 and 3."""
    T, kind = script(), f"int16x{2 * lanes}"
    eight, x = fill(T.int16(8), 2 * lanes), T.reinterpret(kind, words)
    return [(x << eight) >> eight, x >> eight]


def _dotprod(sums: Any, weights: Any, inputs: Any, lanes: int) -> Any:
    """One instruction, `sdot` of Armv8.2."""
    T, kind = script(), f"int8x{4 * lanes}"
    four = T.reinterpret(kind, weights), T.reinterpret(kind, inputs)
    name = f"llvm.aarch64.neon.sdot.v{lanes}i32.v{4 * lanes}i8"
    return T.call_llvm_pure_intrin(f"int32x{lanes}", name, sums, *four)


def _long(sums: Any, weights: Any, inputs: Any, lanes: int) -> Any:
    """Products in 16 bits, added up in pairs twice; on any 64-bit Arm, which has 4 lanes."""
    T, name = script(), "llvm.aarch64.neon"
    pairs = []
    for half in (T.vectorlow, T.vectorhigh):
        two = [T.reinterpret("int8x8", half("int32x2", words)) for words in (weights, inputs)]
        products = T.call_llvm_pure_intrin("int16x8", f"{name}.smull.v8i16", *two)
        pairs.append(T.call_llvm_pure_intrin("int32x4", f"{name}.saddlp.v4i32.v8i16", products))
    return sums + T.call_llvm_pure_intrin(f"int32x{lanes}", f"{name}.addp.v4i32", *pairs)
