// The memory of one session: every tensor that lives longer than one call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "artifact/manifest.h"
#include "core/tensor.h"

namespace lcc {

// A buffer: what the manifest says of it, and the memory that bears its name now.
struct Buffer {
    BufferSpec spec;
    std::unique_ptr<Tensor> tensor;
};

class Buffers {
public:
    // Allocates all of them; `numbers`: the sizes that shapes name.
    Buffers(const Manifest& manifest, const Numbers& numbers);

    // By name. The reference stays valid; which memory it names may change.
    Buffer& at(const std::string& name) const;
    Tensor& tensor(const std::string& name) const { return *at(name).tensor; }

    // In the order of the manifest.
    const std::vector<std::string>& names() const { return names_; }

    // Allocates a buffer anew, as zeros, with the sizes that numbers have now.
    void grow(const std::string& name, const Numbers& numbers);
    // Gives the memory back that buffers have grown by.
    void shrink();

    static void swap(Buffer& one, Buffer& other) { one.tensor.swap(other.tensor); }

    // Rows first .. end-1 along the first axis. Throws Error (artifact) where there are none such:
    // the schedule is wrong.
    static View rows(const Buffer& buffer, int64_t first, int64_t end);

    // Calls visit(buffer, first row, rows) for everything that a saved state holds.
    void each_saved(const Numbers& numbers,
                    const std::function<void(Buffer&, int64_t, int64_t)>& visit) const;

    // Zeros again, but for what no program reads before it is written.
    void clear();

    int64_t bytes() const;
    int64_t longest() const { return longest_; }  // the most rows that any of them has

private:
    static void allocate(Buffer& buffer, const Numbers& numbers);

    std::vector<std::string> names_;
    mutable std::map<std::string, Buffer> buffers_;
    std::vector<std::string> grown_;
    int64_t longest_ = 1;
};

// Shape of the saved rows of a buffer.
std::vector<int64_t> saved_shape(const Buffer& buffer, int64_t rows);

}  // namespace lcc
