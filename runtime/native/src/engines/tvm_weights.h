// The weights of an artifact of TVM: one file, mapped, and an index of its tensors.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "artifact/manifest.h"
#include "engines/tvm_api.h"
#include "text/mapped_file.h"

namespace lcc {

class TvmWeights {
public:
    // Of the target's files in the folder. Throws Error (artifact): a file is missing or damaged, or
    // the manifest does not list it.
    TvmWeights(const tvm::Api& api, const std::string& folder, const Manifest& manifest);

    // Those that a function of the library takes, in order; they live as long as this object.
    // Throws Error (artifact) where the index does not have the function.
    std::vector<tvm::Any> of(const std::string& function) const;

private:
    std::string index_path_;
    MappedFile file_;
    std::map<std::string, tvm::Value> tensors_;  // by place, dtype and shape: shared by functions
    std::map<std::string, std::vector<const tvm::Value*>> functions_;
};

}  // namespace lcc
