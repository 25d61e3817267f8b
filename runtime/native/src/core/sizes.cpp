#include "core/sizes.h"

#include <algorithm>
#include <map>

#include "artifact/check.h"
#include "core/error.h"

namespace lcc {

namespace {

// Names of constants that programs have as numbers, each with a tensor: "program.tensor".
using Fixed = std::map<std::string, std::string>;

bool is_fixed(const TensorSpec& tensor) {
    for (const Size& size : tensor.shape) {
        if (size.named()) {
            return false;
        }
    }
    return true;
}

void add_fixed(const Manifest& manifest, const Block& block, const Run& run,
               const TensorSpec& tensor, const std::string& where, Fixed& fixed) {
    const auto bound = run.bind.find(tensor.name);
    const auto counted = run.ints.find(tensor.name);
    const BufferSpec* buffer = nullptr;
    if (bound != run.bind.end()) {
        buffer = manifest.buffer(
            named(bound->second.buffer, run.each.empty() ? nullptr : &run.each[0]));
    }
    if (buffer != nullptr && bound->second.first.empty()) {
        for (size_t i = 0; i < tensor.shape.size(); ++i) {
            if (buffer->shape[i].named() && !tensor.shape[i].named()) {
                fixed.emplace(buffer->shape[i].name, where);
            }
        }
        return;
    }
    std::string count;
    if (buffer != nullptr) {
        count = bound->second.count;
    } else if (counted != run.ints.end()) {
        count = counted->second.count;
    }
    if (count.empty() || !is_fixed(tensor)) {
        return;
    }
    if (manifest.constants.count(count) != 0) {
        fixed.emplace(count, where);
    } else if (block.over && count == "n") {
        int64_t row = 1, total = 1;
        for (size_t i = 1; buffer != nullptr && i < buffer->shape.size(); ++i) {
            const Size& size = buffer->shape[i];
            row *= size.named() ? manifest.constants.at(size.name) : size.number;
        }
        for (const Size& size : tensor.shape) {
            total *= size.number;
        }
        if (total > row) {  // a program for one token at a time is for all chunks alike
            fixed.emplace(block.over->most, where);
        }
    }
}

Fixed fixed_constants(const Manifest& manifest) {
    Fixed fixed;
    for (const auto& list : manifest.schedule.lists()) {
        for (const Block& block : *list.second) {
            for (const Run& run : block.runs) {
                for (const std::string& name : {run.run, run.one.value_or(run.run)}) {
                    const ProgramEntry& entry = manifest.programs.at(name);
                    for (const auto* tensors : {&entry.inputs, &entry.outputs}) {
                        for (const TensorSpec& tensor : *tensors) {
                            add_fixed(manifest, block, run, tensor, name + "." + tensor.name,
                                      fixed);
                        }
                    }
                }
            }
        }
    }
    return fixed;
}

std::string flag(std::string name) {
    for (char& letter : name) {
        letter = letter == '_' ? '-' : letter;
    }
    return "--" + name;
}

void take(const Manifest& manifest, const std::string& name, int64_t asked, int64_t& size) {
    if (asked == 0) {
        return;
    }
    if (asked < 1) {
        throw config_error(name + " is " + std::to_string(asked) + ", wanted 1 or more");
    }
    std::string reason;
    if (asked < size) {
        const Fixed fixed = fixed_constants(manifest);
        const auto found = fixed.find(name);
        if (found == fixed.end()) {
            size = asked;
            return;
        }
        reason = ", and " + found->second + " has it as a number";
    }
    if (asked != size) {
        throw cache_error(name + " is " + std::to_string(asked) +
                          ", the artifact was compiled for " + std::to_string(size) + reason +
                          "; leave it out, or compile with " + flag(name) + " " +
                          std::to_string(asked));
    }
}

}  // namespace

CacheSizes lowered(const Manifest& manifest, const AskedSizes& asked) {
    CacheSizes sizes = manifest.cache;
    take(manifest, "capacity", asked.capacity, sizes.capacity);
    take(manifest, "budget", asked.budget, sizes.budget);
    take(manifest, "chunk_size", asked.chunk_size, sizes.chunk_size);
    const auto number = [](int64_t value) { return std::to_string(value); };
    if (sizes.budget >= sizes.capacity) {
        throw config_error("budget (" + number(sizes.budget) + ") must be smaller than capacity (" +
                           number(sizes.capacity) + "): an eviction has to make room; lower the "
                           "budget or raise the capacity");
    }
    const int64_t reserved = std::max(sizes.catalyst_size, manifest.constants.at("reserved"));
    const int64_t needed = sizes.budget + sizes.chunk_size + reserved;
    if (needed > sizes.capacity) {
        throw config_error("budget + chunk_size + catalyst_size (" + number(sizes.budget) + " + " +
                           number(sizes.chunk_size) + " + " + number(reserved) + " = " +
                           number(needed) + ") exceeds capacity (" + number(sizes.capacity) +
                           "); wanted " + number(needed) + " slots or more, or smaller chunks");
    }
    const int64_t kept = sizes.sink_size + sizes.recent_size;
    if (kept >= sizes.budget) {
        throw config_error("sink_size + recent_size (" + number(sizes.sink_size) + " + " +
                           number(sizes.recent_size) + " = " + number(kept) +
                           ") must be smaller than budget (" + number(sizes.budget) +
                           "); else no ranked entry can be kept");
    }
    return sizes;
}

void check_protected(int64_t size, int64_t recent_size, int64_t budget) {
    if (size + recent_size >= budget) {
        throw cache_error("protected tokens + recent_size (" + std::to_string(size) + " + " +
                          std::to_string(recent_size) + " = " +
                          std::to_string(size + recent_size) + ") must be smaller than budget (" +
                          std::to_string(budget) + "); protect less text or raise the budget");
    }
}

}  // namespace lcc
