#include "core/error.h"
#include "engines/engine.h"
#include "engines/onnx_runtime.h"
#include "engines/tvm_relax.h"

namespace lcc {

std::unique_ptr<Engine> open_engine(const std::string& folder, const Manifest& manifest,
                                    const EngineOptions& options) {
    const std::string& target = manifest.target;
    if (target == "onnxruntime:cpu" || target == "onnxruntime:mobile") {
        return std::make_unique<OnnxRuntimeEngine>(folder, manifest, options);
    }
    if (is_tvm(target)) {
        return std::make_unique<TvmEngine>(folder, manifest, options);
    }
    throw target_error("target " + target +
                       " is not supported by this build of lcc's native runtime; wanted "
                       "onnxruntime:cpu, onnxruntime:mobile, tvm:cpu or tvm:aarch64-linux");
}

}  // namespace lcc
