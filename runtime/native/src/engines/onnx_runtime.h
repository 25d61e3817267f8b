// Runs ONNX programs with ONNX Runtime, on the caller's own buffers.
//
// Inputs and outputs are bound by address, so a step reads and writes the cache where it lies. The
// kernel that updates a cache in place does so when the past and the present are one buffer.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "engines/engine.h"
#include "engines/ort_api.h"

namespace lcc {

class OnnxRuntimeEngine : public Engine {
public:
    // Loads all programs; `manifest` must outlive it. Throws as `open_engine`.
    OnnxRuntimeEngine(const std::string& folder, const Manifest& manifest,
                      const EngineOptions& options);
    ~OnnxRuntimeEngine() override;

    std::unique_ptr<Runner> runner(const std::string& program) override;

private:
    // Session options, as those of the Python runtime's engine.
    ort::SessionOptions* session_options(const EngineOptions& options) const;
    ort::Session* load(const std::string& file, const ort::SessionOptions* how) const;
    void check_signature(const ort::Session* session, const ProgramEntry& entry) const;
    void close();

    const ort::Api& api_;
    const std::string folder_;
    const Manifest& manifest_;
    bool linked_ = false;  // its programs are links, as in a hub's cache
    std::map<std::string, ort::Session*> sessions_;  // by file: programs may share one
};

}  // namespace lcc
