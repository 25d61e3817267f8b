// One run of one program, for one layer, with names resolved.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/buffers.h"
#include "engines/engine.h"

namespace lcc {

class Call {
public:
    // `layer`: what * stands for; nullptr where the run has no `each`. Tensors that this program
    // does not have are left out. `numbers` and `buffers` must outlive the call.
    Call(const Run& run, const std::string& program, const int64_t* layer, const Manifest& manifest,
         Engine& engine, Numbers& numbers, const Buffers& buffers);

    // Runs once; reads counters, and sets those that the run reads.
    void operator()();

    const int64_t* layer() const { return has_layer_ ? &layer_ : nullptr; }

private:
    // A tensor that is a whole buffer, bound again only where its memory has changed.
    struct Whole {
        std::string tensor;
        const Buffer* buffer;
        uint64_t bound;  // id of the memory
    };
    // Rows of a buffer, or whole numbers in a row, in the shape of the tensor.
    struct Part {
        std::string tensor;
        const Buffer* buffer;             // nullptr = numbers that are counted
        std::unique_ptr<Tensor> counted;  // their memory
        const int64_t* first;
        const int64_t* count;
        int64_t fixed;  // rows that the program takes always; 0 = `count` of them
        std::vector<int64_t> shape;
        int open;  // place of the size that COUNT gives; -1 = none
    };
    // A single number: a counter that is given, or an output that becomes one.
    struct Single {
        std::unique_ptr<Tensor> memory;
        int64_t* number;
    };

    void add_part(const TensorSpec& spec, const std::string& first, const std::string& count,
                  const Buffer* buffer, Numbers& numbers, const Buffers& buffers);
    Single add_single(const TensorSpec& spec, int64_t* number);
    void bind(const Part& part);

    int64_t layer_ = 0;
    bool has_layer_ = false;
    std::unique_ptr<Runner> runner_;
    std::vector<Whole> whole_;
    std::vector<Part> parts_;
    std::vector<Single> given_, read_;
    std::vector<std::pair<Buffer*, Buffer*>> swaps_;
};

}  // namespace lcc
