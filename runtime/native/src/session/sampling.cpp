#include "session/sampling.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>

#include "core/error.h"

namespace lcc {

namespace {

template <typename Number>
std::string shown(Number value) {
    std::ostringstream text;
    text << value;
    return text.str();
}

void check(const Sampling& sampling) {
    const auto wanted = [](bool fits, const char* name, auto value, const char* range) {
        if (!fits) {
            throw config_error(std::string(name) + " is " + shown(value) + ", wanted " + range);
        }
    };
    const Sampling& s = sampling;
    wanted(s.temperature >= 0, "temperature", s.temperature, "0 or more");
    wanted(s.top_k >= 0, "top_k", s.top_k, "0 or more");
    wanted(s.top_p > 0 && s.top_p <= 1, "top_p", s.top_p, "more than 0, at most 1");
    wanted(s.min_p >= 0 && s.min_p < 1, "min_p", s.min_p, "0 or more, less than 1");
    wanted(s.repetition_penalty > 0, "repetition_penalty", s.repetition_penalty, "more than 0");
    wanted(!s.seed || *s.seed >= 0, "seed", s.seed.value_or(0), "0 or more");
}

const Json* find(const Json& defaults, const char* name) {
    const auto& fields = defaults.fields("generation_config.json");
    const auto found = fields.find(name);
    return found == fields.end() || found->second.is(Json::Kind::null) ? nullptr : &found->second;
}

}  // namespace

Sampling Sampling::of(const Json& defaults, const AskedSampling& asked) {
    Sampling chosen;
    const auto take = [](auto& value, const auto& given) { value = given.value_or(value); };
    const Json* draws = find(defaults, "do_sample");
    const bool by_default = draws != nullptr && draws->boolean("do_sample");
    const auto number = [&](const char* name, double& value) {
        if (const Json* json = find(defaults, name)) {
            value = json->number(name);
        }
    };
    number("repetition_penalty", chosen.repetition_penalty);
    if (asked.temperature.value_or(by_default ? 1 : 0) > 0) {
        chosen.temperature = 1;
        number("temperature", chosen.temperature);
        number("top_p", chosen.top_p);
        number("min_p", chosen.min_p);
        if (const Json* json = find(defaults, "top_k")) {
            chosen.top_k = json->integer("top_k");
        }
    } else {
        const char* name = asked.top_k ? "top_k" : asked.top_p ? "top_p" : "min_p";
        if (asked.top_k || asked.top_p || asked.min_p) {
            throw config_error(std::string(name) +
                               " is given but the answer is greedy; give a temperature above 0");
        }
    }
    take(chosen.temperature, asked.temperature);
    take(chosen.top_k, asked.top_k);
    take(chosen.top_p, asked.top_p);
    take(chosen.min_p, asked.min_p);
    take(chosen.repetition_penalty, asked.repetition_penalty);
    chosen.seed = asked.seed;
    check(chosen);
    return chosen;
}

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling), state_(0) {
    if (sampling.seed) {
        state_ = static_cast<uint64_t>(*sampling.seed);
    } else {
        std::random_device device;
        state_ = uint64_t{device()} << 32 | device();
    }
}

// A number from 0 up to and without 1, of 53 bits: splitmix64.
double Sampler::uniform() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return static_cast<double>(z >> 11) * 0x1p-53;
}

int32_t Sampler::operator()(const float* logits, int64_t count, const std::vector<bool>& seen) {
    if (sampling_.repetition_penalty != 1) {
        changed_.assign(logits, logits + count);
        const auto penalty = static_cast<float>(sampling_.repetition_penalty);
        for (size_t id = 0; id < seen.size() && id < changed_.size(); ++id) {
            if (seen[id]) {
                changed_[id] = changed_[id] > 0 ? changed_[id] / penalty : changed_[id] * penalty;
            }
        }
        logits = changed_.data();
    }
    if (sampling_.temperature == 0) {
        return static_cast<int32_t>(std::max_element(logits, logits + count) - logits);
    }
    return draw(logits, count);
}

int32_t Sampler::draw(const float* logits, int64_t count) {
    ids_.resize(static_cast<size_t>(count));
    for (size_t id = 0; id < ids_.size(); ++id) {
        ids_[id] = static_cast<int32_t>(id);
    }
    // By probability, and by id where that is equal, so that the order is defined.
    const auto better = [&](int32_t one, int32_t other) {
        return logits[one] != logits[other] ? logits[one] > logits[other] : one < other;
    };
    if (sampling_.top_k > 0 && sampling_.top_k < count) {
        std::nth_element(ids_.begin(), ids_.begin() + sampling_.top_k - 1, ids_.end(), better);
        ids_.resize(static_cast<size_t>(sampling_.top_k));
    }
    std::sort(ids_.begin(), ids_.end(), better);
    weights_.clear();
    const double best = static_cast<double>(logits[ids_[0]]);
    double total = 0;
    for (int32_t id : ids_) {
        const double behind = static_cast<double>(logits[id]) - best;
        weights_.push_back(exact_exp(behind / sampling_.temperature));
        total += weights_.back();
    }
    size_t kept = 0;
    double before = 0;  // of the better ones
    while (kept < weights_.size() &&
           (sampling_.top_p >= 1 || before < sampling_.top_p * total)) {
        before += weights_[kept++];
    }
    size_t chosen = 0;
    while (chosen < kept && weights_[chosen] >= sampling_.min_p * weights_[0]) {
        ++chosen;
    }
    total = 0;
    for (size_t i = 0; i < chosen; ++i) {
        total += weights_[i];
    }
    const double point = uniform() * total;
    double edge = 0;
    for (size_t i = 0; i < chosen; ++i) {
        edge += weights_[i];
        if (edge > point) {
            return ids_[i];
        }
    }
    return ids_[chosen - 1];
}

double exact_exp(double x) {
    if (!(x >= -700)) {
        return 0;
    }
    // x = k ln 2 + r, where |r| is at most half of ln 2; then the series of e^r, by Horner.
    const double k = std::floor(x * 0x1.71547652b82fep+0 + 0.5);
    const double r = (x - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    double sum = 1;
    for (int i = 13; i >= 1; --i) {
        sum = sum * r / i + 1;
    }
    return std::ldexp(sum, static_cast<int>(k));
}

}  // namespace lcc
