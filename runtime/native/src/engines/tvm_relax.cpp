#include "engines/tvm_relax.h"

#include <filesystem>
#include <set>

#include "core/error.h"
#include "engines/cpu_level.h"
#include "engines/tvm_library.h"

namespace lcc {

bool is_tvm(const std::string& target) {
    return target == "tvm:cpu" || target == "tvm:aarch64-linux";
}

TvmEngine::TvmEngine(const std::string& folder, const Manifest& manifest,
                     const EngineOptions& options)
    : manifest_(manifest) {
    if (const std::string missing = lacking(manifest.cpu); !missing.empty()) {
        throw target_error("the artifact was compiled for " + manifest.cpu +
                           ", this machine lacks " + missing +
                           "; compile with --cpu and a level that it has");
    }
    std::set<std::string> files;
    for (const auto& each : manifest.programs) {
        files.insert(each.second.file);
    }
    if (files.size() != 1) {
        throw artifact_error(folder + ": " + std::to_string(files.size()) +
                             " libraries, wanted 1; compile anew");
    }
    const tvm::Api& api = tvm::Api::load(options.library);
    namespace fs = std::filesystem;
    const fs::path path = fs::absolute(fs::u8path(folder) / fs::u8path(*files.begin()));
    const int threads = options.threads > 0 ? options.threads : tvm::cores();
    weights_ = std::make_unique<TvmWeights>(api, folder, manifest);
    machine_ = std::make_shared<TvmMachine>(api, path.u8string(), threads);
    for (const auto& each : manifest.programs) {
        try {
            functions_.emplace(each.first, machine_->function(each.first));
        } catch (const Error& error) {
            throw at(path.u8string(), error);
        }
        weights_->of(each.first);
    }
}

std::unique_ptr<Runner> TvmEngine::runner(const std::string& program) {
    return std::make_unique<TvmRunner>(machine_, manifest_.programs.at(program),
                                       functions_.at(program), weights_->of(program));
}

}  // namespace lcc
