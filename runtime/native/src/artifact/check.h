// Whether the parts of a manifest fit together; opens no file. All throw Error (artifact).
//
// What is refused here need not be looked for when the schedule runs: names that nothing bears,
// memory of another shape or dtype, an input that nothing is bound to, a loop without an end.
#pragma once

#include <map>
#include <string>

#include "artifact/manifest.h"
#include "core/error.h"

namespace lcc {

using BuffersByName = std::map<std::string, const BufferSpec*>;

// Throws Error (artifact) with the message where it does not hold.
inline void require(bool holds, const std::string& message) {
    if (!holds) {
        throw artifact_error(message);
    }
}

void check_manifest(const Manifest& manifest);

// Constants, and counters as they are at first.
void check_numbers(const Manifest& manifest);

// A manifest for one target alone.
void check_schedule(const Manifest& manifest, const Manifest& whole);

// A block of a list of the schedule, but for its runs and its archive.
void check_block(const Manifest& manifest, const Block& block, const BuffersByName& buffers,
                 const std::string& list, const std::string& where);

// One run, for each of its layers; `whole`: with all targets, whose programs may have a tensor that
// these do not.
void check_run(const Manifest& manifest, const Manifest& whole, const BuffersByName& buffers,
               const Run& run, const std::string& where);

// Two buffers that exchange their memory.
void check_swap(const Pair& pair, const BuffersByName& buffers, const std::string& where);

void check_columns(const Manifest& manifest, const BuffersByName& buffers);
void check_archive_use(const Manifest& manifest, const Block& block, const BuffersByName& buffers,
                       const std::string& where);
void check_states(const Manifest& manifest, const BuffersByName& buffers);

// Counters of a saved state, in a session with these constants.
void check_counters(const Manifest& manifest, const Numbers& constants, const Numbers& counters);

// The number of a layer for each * in the name of a buffer or column.
std::string named(const std::string& name, const int64_t* layer);

}  // namespace lcc
