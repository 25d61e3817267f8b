// Runs the lists of a schedule, as docs/format.md says; knows no model, no policy, no text.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/archive.h"
#include "core/buffers.h"
#include "core/call.h"

namespace lcc {

using TokenIds = std::vector<int32_t>;

class Interpreter {
public:
    // Makes the calls of all lists, each with a runner of its own. Everything must outlive it.
    Interpreter(const Manifest& manifest, Numbers& numbers, Buffers& buffers, Engine& engine);

    // Runs a list; `ids`: what its loops over text, or over the catalyst, go over.
    void run(const Blocks& blocks, const TokenIds& ids = {});

    // Notes what the states of recurrent layers are now: from here on tokens may be read again.
    void mark();

    // What is read while this object lives changes no state of a recurrent layer, to the bit.
    class StatesKept {
    public:
        explicit StatesKept(Interpreter& interpreter);
        ~StatesKept();
        StatesKept(const StatesKept&) = delete;
        StatesKept& operator=(const StatesKept&) = delete;

    private:
        std::vector<std::pair<Buffer*, std::vector<char>>> before_;
    };

    // Where evicted entries go; nullptr = nowhere.
    Archive* archive = nullptr;

    // Names of the states of recurrent layers, without the marks.
    const Names& states() const { return states_; }

private:
    using Calls = std::vector<std::unique_ptr<Call>>;

    void repeat(const Block& block, const TokenIds& ids);
    void times(const Block& block, const TokenIds& ids);
    void over_ids(const Block& block, TokenIds ids);
    void once(const Block& block);
    void fetch(const ArchiveUse& use, const int64_t* layer);
    void store(const ArchiveUse& use, const Block& block, const int64_t* layer);
    void make_calls(const Run& run, Engine& engine);
    void copy(const std::string& from, const std::string& to);
    Archive& rows();

    const Manifest& manifest_;
    Numbers& numbers_;
    Buffers& buffers_;
    Names states_;
    std::map<const Run*, std::array<Calls, 2>> calls_;  // in general, and for n = 1
};

}  // namespace lcc
