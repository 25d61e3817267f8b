// Logits to a token: greedy, or drawn after temperature, top-k, top-p and min-p.
//
// Every operation is one of IEEE 754 in a fixed order, as docs/format.md ("Drawing a token") says:
// the same logits and the same seed give the same token in every runtime.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "artifact/json.h"

namespace lcc {

// How the next token is chosen; what is not set is as generation_config.json says.
struct AskedSampling {
    std::optional<double> temperature, top_p, min_p, repetition_penalty;
    std::optional<int64_t> top_k, seed;
};

struct Sampling {
    double temperature = 0;  // 0 = the most probable token; otherwise logits are divided by it
    int64_t top_k = 0;       // draw among the k most probable; 0 = all
    double top_p = 1;        // then among the fewest whose probabilities sum to at least p
    double min_p = 0;        // then among those at least min_p times as probable as the best
    double repetition_penalty = 1;  // of ids of this call; divides positive logits
    std::optional<int64_t> seed;    // nothing = another answer every time

    // What is asked for, else what generation_config.json says: without `do_sample` there, and
    // without a temperature asked for, the answer is greedy. Throws Error (config).
    static Sampling of(const Json& defaults, const AskedSampling& asked);
};

class Sampler {
public:
    explicit Sampler(const Sampling& sampling);

    // The next token; `seen`: whether each id was in this call, for the penalty.
    int32_t operator()(const float* logits, int64_t count, const std::vector<bool>& seen);

private:
    double uniform();
    int32_t draw(const float* logits, int64_t count);

    Sampling sampling_;
    uint64_t state_;
    std::vector<float> changed_;
    std::vector<int32_t> ids_;
    std::vector<double> weights_;
};

// e to the power of x, which is 0 or less: the same bits everywhere.
double exact_exp(double x);

}  // namespace lcc
