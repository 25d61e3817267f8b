// What an ONNX program may not be, found in its bytes before an engine sees them.
//
// An ONNX file is a protobuf message. Any tensor in it may name a file, and ONNX Runtime opens what
// is named: only what the manifest lists may be. Graphs in nodes and functions make work without
// end: lcc writes none but loops over a tensor.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "artifact/manifest.h"

namespace lcc {

// Refuses what no program of lcc has. Throws Error (artifact) that names the first file which is not
// listed; or an operator that runs graphs other than a loop over a tensor; or it is no ONNX program.
void check_program(std::string_view data, const std::map<std::string, FileEntry>& listed);

}  // namespace lcc
