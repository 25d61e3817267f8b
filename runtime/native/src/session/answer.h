// An answer on its way: how its next token is chosen, and its text in pieces.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/executor.h"
#include "session/stop_strings.h"
#include "session/reader.h"
#include "session/sampling.h"
#include "text/decoder.h"

namespace lcc {

// How to generate; what is not set is as generation_config.json says.
struct GenerateOptions {
    std::optional<int64_t> max_new_tokens;
    AskedSampling sampling;
    Names stop;                     // besides the model's own
    std::optional<TokenIds> ends;   // in place of the model's own
    bool recall = true, prefix = true, plain = false;
};

struct Answer {
    Answer(const Sampling& sampling, Names stops)
        : sampler(sampling), stops(std::move(stops)), penalizes(sampling.repetition_penalty != 1) {}

    std::optional<int64_t> limit;
    std::set<int32_t> ends;
    Sampler sampler;
    StopStrings stops;
    std::unique_ptr<TextDecoder> decoder;  // nullptr = the artifact has no tokenizer tables
    std::vector<bool> seen;  // ids of this call, for the penalty
    bool penalizes;
    int64_t epoch = 0;  // of the session: another call that moves it ends the answer
    int64_t count = 0;  // tokens chosen
    Moment begin;
    bool over = false;       // no token comes
    bool text_over = false;  // no piece comes
    std::string piece;
};

}  // namespace lcc
