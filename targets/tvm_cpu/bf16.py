"""Products in bfloat16 with sums in float32: AVX-512 BF16, instructions that TVM has no name for.

A word is a pair of bfloat16 numbers in an int32, the first in its lower half.
"""

from contextlib import AbstractContextManager
from typing import Any

from lcc.targets.tvm_cpu.tir import script

LANES = 16
# TVM turns bfloat16 into float32 before LLVM sees it, so these are functions in LLVM's language;
# both disappear in the loops that call them.
_CODE = """
define <16 x float> @lcc_dot_bf16(<16 x float> %sums, <16 x i32> %left, <16 x i32> %right) {
  %a = bitcast <16 x i32> %left to <32 x bfloat>
  %b = bitcast <16 x i32> %right to <32 x bfloat>
  %c = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
      <16 x float> %sums, <32 x bfloat> %a, <32 x bfloat> %b)
  ret <16 x float> %c
}
define <16 x i32> @lcc_words_bf16(<16 x float> %first, <16 x float> %second) {
  %a = call <32 x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512(
      <16 x float> %second, <16 x float> %first)
  %b = bitcast <32 x bfloat> %a to <16 x i32>
  ret <16 x i32> %b
}
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
    <16 x float>, <32 x bfloat>, <32 x bfloat>)
declare <32 x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512(<16 x float>, <16 x float>)
"""


def bf16() -> AbstractContextManager:
    """The part of a kernel that calls the functions below."""
    T = script()
    return T.attr(T.int32(0), "pragma_import_llvm", _CODE)


def dot(sums: Any, left: Any, right: Any) -> Any:
    """sums[i] + both products of the words left[i] and right[i]; float32, 16 lanes."""
    return script().call_extern("float32x16", "lcc_dot_bf16", sums, left, right)


def words(first: Any, second: Any) -> Any:
    """32 numbers that follow each other, float32 -> 16 words, rounded to the nearest."""
    return script().call_extern("int32x16", "lcc_words_bf16", first, second)
