// An opened artifact: what all of its sessions share.
#pragma once

#include <memory>
#include <string>

#include "artifact/json.h"
#include "artifact/manifest.h"
#include "engines/engine.h"
#include "text/tokenizer.h"

namespace lcc {

struct ModelOptions {
    std::string target;  // "" = the first that runs here
    EngineOptions engine;
    bool hashes = true;
    bool allow_native = false;  // machine code of the artifact may run
};

struct Model {
    std::string folder;
    Manifest manifest;  // for the target that runs
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Tokenizer> tokenizer;  // nullptr = the artifact has no tables
    Json generation_config;                // an object
    double load_seconds = 0;

    // Throws Error (unsupported) where the artifact has no tokenizer tables.
    const Tokenizer& text() const;
    // Throws Error (config) for an id outside of the vocabulary.
    void check_ids(const int32_t* ids, size_t count, const std::string& what) const;
};

// Reads and verifies an artifact, and loads all of its programs.
std::shared_ptr<Model> open_model(const std::string& folder, const ModelOptions& options);

}  // namespace lcc
