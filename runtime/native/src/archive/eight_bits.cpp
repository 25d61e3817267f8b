#include "archive/eight_bits.h"

#include <algorithm>
#include <cmath>
#include <vector>

// Sums and products are rounded one by one, as numpy does it: built with -ffp-contract=off.

namespace lcc {

namespace {

constexpr float LARGEST = 127;

}  // namespace

void quantize(const float* rows, size_t count, size_t channels, int8_t* numbers, float* ranges) {
    std::vector<float> least(rows, rows + channels), most(least);
    for (size_t row = 1; row < count; ++row) {
        const float* values = rows + row * channels;
        for (size_t i = 0; i < channels; ++i) {
            // What is no number stays none, as in numpy.
            least[i] = values[i] < least[i] || std::isnan(values[i]) ? values[i] : least[i];
            most[i] = values[i] > most[i] || std::isnan(values[i]) ? values[i] : most[i];
        }
    }
    float* middle = ranges;
    float* step = ranges + channels;
    for (size_t i = 0; i < channels; ++i) {
        middle[i] = least[i] / 2 + most[i] / 2;
        step[i] = most[i] / (2 * LARGEST) - least[i] / (2 * LARGEST);
    }
    for (size_t row = 0; row < count; ++row) {
        for (size_t i = 0; i < channels; ++i) {
            const size_t place = row * channels + i;
            const float steps = (rows[place] - middle[i]) / (step[i] == 0 ? 1 : step[i]);
            const float whole = std::min(std::max(std::nearbyint(steps), -LARGEST), LARGEST);
            numbers[place] = std::isnan(whole) ? int8_t{0} : static_cast<int8_t>(whole);
        }
    }
}

void restore(const int8_t* numbers, size_t count, size_t channels, const float* ranges,
             float* rows) {
    for (size_t row = 0; row < count; ++row) {
        for (size_t i = 0; i < channels; ++i) {
            const size_t place = row * channels + i;
            rows[place] = static_cast<float>(numbers[place]) * ranges[channels + i] + ranges[i];
        }
    }
}

}  // namespace lcc
