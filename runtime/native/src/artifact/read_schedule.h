// The parts of a manifest that say how programs are run, from JSON.
#pragma once

#include <string>

#include "artifact/manifest.h"

namespace lcc {

Dtype read_dtype(const Json& json, const std::string& where);
Programs read_programs(const Json& json, const std::string& where);
BufferSpec read_buffer(const Json& json, const std::string& where);
Column read_column(const Json& json, const std::string& where);
Group read_group(const Json& json, const std::string& where);
Schedule read_schedule(const Json& json, const std::string& where);
TextFacts read_text_facts(const Json& json, const std::string& where);

}  // namespace lcc
