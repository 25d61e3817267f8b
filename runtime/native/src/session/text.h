// The tokenizer of an artifact, where this build has one.
#pragma once

#if LCC_HAS_TOKENIZER
#include "text/tokenizer.h"
#else
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lcc {

// Never made: without tables, sessions take ids alone.
class Tokenizer {
public:
    virtual ~Tokenizer() = default;
    virtual std::vector<int32_t> encode(std::string_view text) const = 0;
    virtual std::string token_bytes(int32_t id) const = 0;
};

}  // namespace lcc
#endif
