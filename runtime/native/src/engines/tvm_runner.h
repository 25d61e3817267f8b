// A function of a library of TVM with bindings of its own.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engines/engine.h"
#include "engines/tvm_api.h"

namespace lcc {

// The virtual machine runs one program at a time: calls of all threads wait for each other. Each
// thread that calls has a pool of kernel threads of its own, which is set up when it first comes.
class TvmMachine {
public:
    TvmMachine(const tvm::Api& api, const std::string& library, int threads);

    const tvm::Api& api() const { return api_; }
    // A program. Throws Error (artifact) where the library has none of this name.
    tvm::Value function(const std::string& name);
    // Throws tvm::Failure.
    tvm::Value call(const tvm::Value& function, const std::vector<tvm::Any>& arguments);

private:
    void set_threads() const;

    const tvm::Api& api_;
    const int threads_;
    std::mutex mutex_;
    tvm::Value machine_;
};

class TvmRunner : public Runner {
public:
    // All but the entry are copied; it must outlive the runner.
    TvmRunner(std::shared_ptr<TvmMachine> machine, const ProgramEntry& entry,
              const tvm::Value& function, const std::vector<tvm::Any>& weights);

    void bind(const std::string& tensor, const View& view) override;
    void run() override;

private:
    struct Input {
        View view;
        tvm::Value tensor;             // of the view, or of the copy
        std::unique_ptr<Tensor> copy;  // where vectors can be loaded; none if the view lies so
        bool bound = false;
    };

    void check(const TensorSpec& spec, const View& view) const;
    void check_all() const;
    tvm::Value tensor_of(const View& view) const;
    void keep(const TensorSpec& spec, const tvm::Value& result);
    const View* target(const std::string& output) const;

    std::shared_ptr<TvmMachine> machine_;
    const ProgramEntry& entry_;
    const tvm::Value& function_;
    std::vector<Input> inputs_;  // as those of the entry
    std::map<std::string, size_t> places_;
    std::map<std::string, View> outputs_;
    std::vector<tvm::Any> arguments_;
    bool checked_ = false;
};

}  // namespace lcc
