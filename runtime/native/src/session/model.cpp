#include "session/model.h"

#include <chrono>

#include "artifact/being_loaded.h"
#include "artifact/folder.h"
#include "core/error.h"
#include "core/resident.h"
#include "engines/tvm_relax.h"

namespace lcc {

namespace {

// Refuses machine code of the artifact that nobody has allowed.
void check_code(const Model& model, const ModelOptions& options) {
    const std::string& target = model.manifest.target;
    if (is_tvm(target) && !options.allow_native) {
        throw trust_error(model.folder + ": target " + target +
                          " runs machine code of the artifact (" +
                          model.manifest.programs.begin()->second.file +
                          ") in this process, with all that it may do; if you trust whoever made "
                          "it, allow it with allow_native, or --allow-native");
    }
}

// The first target that can and may run here, or the one that was named.
void choose(Model& model, const Manifest& whole, const ModelOptions& options) {
    const Names targets = options.target.empty() ? whole.targets() : Names{options.target};
    std::unique_ptr<Error> first;
    for (const std::string& target : targets) {
        model.manifest = whole.for_target(target);
        try {
            check_code(model, options);
            model.engine = open_engine(model.folder, model.manifest, options.engine);
            return;
        } catch (const Error& error) {
            if (error.status() != LCC_ERROR_TARGET && error.status() != LCC_ERROR_TRUST) {
                throw;
            }
            first = first ? std::move(first) : std::make_unique<Error>(error);
        }
    }
    throw *first;
}

bool lists(const Manifest& manifest, const char* name) { return manifest.files.count(name) != 0; }

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& folder, const Manifest& manifest) {
    return lists(manifest, "text.bin") ? Tokenizer::open(folder + "/text.bin") : nullptr;
}

}  // namespace

const Tokenizer& Model::text() const {
    if (tokenizer == nullptr) {
        throw unsupported(folder + ": this artifact has no tokenizer tables (text.bin); give token "
                                   "ids in place of text");
    }
    return *tokenizer;
}

void Model::check_ids(const int32_t* ids, size_t count, const std::string& what) const {
    for (size_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || ids[i] >= manifest.vocab_size) {
            throw config_error(what + ": token " + std::to_string(i) + " is " +
                               std::to_string(ids[i]) + ", wanted 0 to " +
                               std::to_string(manifest.vocab_size - 1));
        }
    }
}

std::shared_ptr<Model> open_model(const std::string& folder, const ModelOptions& options) {
    const auto begin = std::chrono::steady_clock::now();
    if (options.engine.threads < 0) {
        throw config_error("threads is " + std::to_string(options.engine.threads) +
                           ", wanted 1 or more, or 0 for as many as there are cores");
    }
    auto model = std::make_shared<Model>();
    model->folder = folder;
    const BeingLoaded held(folder);
    const Manifest whole = read_manifest(folder);
    const Stamps stamps = verify_files(folder, whole, options.hashes);
    choose(*model, whole, options);
    if (!options.engine.mapped) {
        page_out(folder);
    }
    trim();
    model->tokenizer = open_tokenizer(folder, model->manifest);
    model->generation_config = Json::object();
    if (lists(whole, "generation_config.json")) {
        const std::string path = folder + "/generation_config.json";
        try {
            model->generation_config = Json::parse(read_file(path));
            model->generation_config.fields("generation_config.json");
        } catch (const Error& error) {
            throw at(path, error);
        }
    }
    check_unchanged(stamps);
    model->load_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return model;
}

}  // namespace lcc
