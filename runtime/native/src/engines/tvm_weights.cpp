#include "engines/tvm_weights.h"

#include <algorithm>

#include "artifact/fields.h"
#include "core/error.h"

namespace lcc {

namespace {

std::string listed(const std::string& folder, const Manifest& manifest, const char* ending) {
    std::string name = "weights_" + manifest.target + ending;
    std::replace(name.begin(), name.end(), ':', '_');
    const std::string path = folder + "/" + name;
    if (manifest.files.count(name) == 0) {
        throw artifact_error(path + ": the manifest does not list it; compile anew");
    }
    return path;
}

tvm::DataType data_type(const std::string& name, const std::string& where) {
    struct Named {
        const char* prefix;
        uint8_t code;
    };
    for (const Named& each : {Named{"float", tvm::CODE_FLOAT}, Named{"uint", tvm::CODE_UINT},
                              Named{"int", tvm::CODE_INT}}) {
        const std::string prefix = each.prefix;
        if (name.compare(0, prefix.size(), prefix) == 0) {
            for (uint8_t bits : {8, 16, 32, 64}) {
                if (name.substr(prefix.size()) == std::to_string(bits)) {
                    return {each.code, bits, 1};
                }
            }
        }
    }
    throw artifact_error(where + ": unknown dtype " + name);
}

}  // namespace

TvmWeights::TvmWeights(const tvm::Api& api, const std::string& folder, const Manifest& manifest)
    : index_path_(listed(folder, manifest, ".json")), file_(listed(folder, manifest, ".bin")) {
    const std::string path = listed(folder, manifest, ".bin");
    const Json index = [&] {
        try {
            return Json::parse(read_file(index_path_));
        } catch (const Error& error) {
            throw artifact_error(index_path_ + ": no index of weights (" + error.what() +
                                 "); compile anew");
        }
    }();
    const auto size = static_cast<int64_t>(file_.bytes().size());
    for (const auto& [function, list] : index.fields(index_path_)) {
        std::vector<const tvm::Value*>& mine = functions_[function];
        for (const Json& each : list.items(index_path_ + ": " + function)) {
            const Fields fields(each, index_path_ + ": " + function, {"offset", "dtype", "shape"});
            const int64_t offset = fields.integer("offset");
            const tvm::DataType dtype = data_type(fields.text("dtype"), fields.at("dtype"));
            const auto shape = fields.list<int64_t>("shape", read_integer);
            int64_t bytes = dtype.bits / 8;
            for (int64_t each_size : shape) {
                if (each_size < 0 || (each_size > 0 && bytes > size / each_size)) {
                    bytes = size + 1;  // more than the file has
                    break;
                }
                bytes *= each_size;
            }
            if (offset < 0 || offset % static_cast<int64_t>(ALIGNMENT) != 0) {
                throw artifact_error(path + ": a tensor at byte " + std::to_string(offset) +
                                     ", not aligned");
            }
            if (bytes > size || offset > size - bytes) {
                throw artifact_error(path + ": " + std::to_string(size) +
                                     " bytes, a tensor ends behind them; copy it anew");
            }
            const auto [found, is_new] = tensors_.try_emplace(each.line());
            if (is_new) {
                // Kernels only read weights: the map itself cannot be written.
                found->second =
                    api.tensor(const_cast<char*>(file_.bytes().data()) + offset, dtype, shape);
            }
            mine.push_back(&found->second);
        }
    }
}

std::vector<tvm::Any> TvmWeights::of(const std::string& function) const {
    const auto found = functions_.find(function);
    if (found == functions_.end()) {
        throw artifact_error(index_path_ + ": no function " + function + "; compile anew");
    }
    std::vector<tvm::Any> weights;
    for (const tvm::Value* each : found->second) {
        weights.push_back(each->any());
    }
    return weights;
}

}  // namespace lcc
