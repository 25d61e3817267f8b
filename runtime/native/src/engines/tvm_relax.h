// Runs the library that target tvm:cpu or tvm:aarch64-linux makes, on the caller's own buffers.
//
// Of TVM it needs the runtime alone: no compiler. The weights are mapped and handed over where they
// lie. A cache is written by the kernels where it is bound.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "engines/engine.h"
#include "engines/tvm_runner.h"
#include "engines/tvm_weights.h"

namespace lcc {

// Whether the target is one that this engine runs.
bool is_tvm(const std::string& target);

// One library with a function for every program, and one map of the weights.
class TvmEngine : public Engine {
public:
    // Loads all programs; `manifest` must outlive it. Throws as `open_engine`.
    TvmEngine(const std::string& folder, const Manifest& manifest, const EngineOptions& options);

    std::unique_ptr<Runner> runner(const std::string& program) override;

private:
    const Manifest& manifest_;
    std::unique_ptr<TvmWeights> weights_;
    std::shared_ptr<TvmMachine> machine_;
    std::map<std::string, tvm::Value> functions_;
};

}  // namespace lcc
