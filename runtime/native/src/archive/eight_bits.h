// Keys and values of a block of archived rows in 8 bits: each channel has its own range.
//
// The channels of a key lie around values of their own, some of them far from zero, and differ
// little from token to token. Between a channel's least and its largest number in a block are 255
// steps.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lcc {

// Whole numbers of -127 .. 127, and the ranges that take them back to the rows of a block:
// `channels` middles, then as many steps. The error of a number is at most half a step.
void quantize(const float* rows, size_t count, size_t channels, int8_t* numbers, float* ranges);

// The numbers of any rows of that block, but for their error.
void restore(const int8_t* numbers, size_t count, size_t channels, const float* ranges,
             float* rows);

}  // namespace lcc
