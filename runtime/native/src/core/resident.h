// Gives memory back that the process holds and does not need: on Linux; elsewhere nothing.
#pragma once

#include <string>

namespace lcc {

// Returns to the system what was freed: what a closed session had would stay with the heap, so that
// the next one comes on top of it.
void trim();

// Lets go of the pages of mapped files of a folder; whoever needs one reads it again. Weights that
// were read to be packed would stay beside the packed copies.
void page_out(const std::string& folder);

}  // namespace lcc
