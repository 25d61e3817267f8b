// What the runtime asks of whatever executes the programs.
#pragma once

#include <memory>
#include <string>

#include "artifact/manifest.h"
#include "core/tensor.h"

namespace lcc {

// A loaded program with bindings of its own. For one thread at a time.
//
// A view under the name of an input is read, under the name of an output is written. It is
// C-contiguous, and of the signature's dtype and shape. Its address is what is bound: nothing is
// copied where the engine can avoid it. An output that is not bound is not wanted; one that the
// signature lists in `updates` is written to the memory of its input, if not bound itself.
class Runner {
public:
    virtual ~Runner() = default;

    // Keeps a view for a tensor of the program until another one is bound.
    virtual void bind(const std::string& tensor, const View& view) = 0;

    // Runs once. When it returns, the results lie in the views. Throws Error (target).
    virtual void run() = 0;
};

// The programs of one artifact, all loaded when it is made, for any number of threads.
class Engine {
public:
    virtual ~Engine() = default;

    // A new runner of a program of the manifest.
    virtual std::unique_ptr<Runner> runner(const std::string& program) = 0;
};

// How an engine is opened.
struct EngineOptions {
    std::string library;  // path; "" = as the engine finds it
    int threads = 0;      // 0 = as many as there are cores
    bool mapped = false;  // kernels read the weights where the file is mapped
};

// Opens the engine for a manifest's target and loads all of its programs.
//
// Throws Error (target): no engine for this target is in this library, or it is not what is needed;
// Error (artifact): a program cannot be loaded, or is not what the manifest says.
std::unique_ptr<Engine> open_engine(const std::string& folder, const Manifest& manifest,
                                    const EngineOptions& options);

}  // namespace lcc
