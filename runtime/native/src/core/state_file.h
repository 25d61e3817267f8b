// What a session holds, in a file: the rows in use of every buffer that the manifest marks.
//
// A safetensors file, as docs/format.md ("Saved states") says and the Python runtime's core/state.py
// writes: each reads what the other has written.
#pragma once

#include <cstdio>
#include <functional>
#include <map>
#include <string>

#include "artifact/json.h"
#include "core/executor.h"

namespace lcc {

class StateFile {
public:
    // Writes the state beside `path` and renames it. `notes`: what the caller wants to find again;
    // `dtype`: of keys and values, "" = the cache's own.
    //
    // Throws Error (artifact) where the disk refuses, Error (config) for another dtype, or keys too
    // large for float16.
    static void save(const std::string& path, Executor& executor, const Json& notes,
                     const std::string& dtype);

    // Puts a saved state into the executor; returns the notes, which `check_notes` has accepted.
    // Everything is checked before anything is changed.
    //
    // Throws Error (artifact): the file is missing, damaged, newer, or of another artifact; Error
    // (cache): it holds more entries than this session has slots.
    static Json load(const std::string& path, Executor& executor,
                     const std::function<void(const Json&)>& check_notes);

private:
    struct Entry {
        std::string name, dtype;
        std::vector<int64_t> shape;
        int64_t begin = 0, end = 0;
    };
    struct Page {
        Numbers counters;
        TokenIds beginning;
        Json notes;
        bool archived = false;
        int64_t total = 0, check = 0;  // of the archive
    };
    using Tensors = std::function<void(Buffer&, int64_t first, int64_t rows, const Tensor&)>;

    static std::vector<Entry> table(const Executor& executor, const Numbers& counters,
                                    const std::string& dtype);
    static Page read_page(const std::string& text, const Executor& executor);
    static Json load_open(std::FILE* file, int64_t size, Executor& executor,
                          const std::function<void(const Json&)>& check_notes);
    static std::string check_table(const Json::Object& fields, const Executor& executor,
                                   const Numbers& counters);
    static void each_tensor(std::FILE* file, Executor& executor, const Page& page,
                            const std::string& dtype, class Sha256* digest, const Tensors& visit);
    static void check_ids(const Executor& executor, const std::string& name, const int64_t* ids,
                          size_t count);
};

}  // namespace lcc
