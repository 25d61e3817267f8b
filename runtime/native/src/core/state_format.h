// What the writer and the reader of saved states have in common.
#pragma once

#include <string>

#include "artifact/manifest.h"

namespace lcc {

constexpr int64_t STATE_VERSION = 7;

inline bool is_key_or_value(const BufferSpec& spec) {
    return spec.role == "key" || spec.role == "value";
}

// Names of dtypes in a safetensors file.
inline std::string code_of(const std::string& dtype) {
    return dtype == "float32" ? "F32" : dtype == "float16" ? "F16" : dtype == "int32" ? "I32" : "I64";
}

inline size_t width_of(const std::string& dtype) {
    return dtype == "float16" ? 2 : dtype == "int64" ? 8 : 4;
}

}  // namespace lcc
