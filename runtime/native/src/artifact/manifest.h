// manifest.json: what an artifact says of itself, as docs/format.md describes it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "artifact/json.h"

namespace lcc {

constexpr int64_t FORMAT_VERSION = 3;

using Names = std::vector<std::string>;
using Numbers = std::map<std::string, int64_t>;
using Pair = std::pair<std::string, std::string>;

// A size of a shape: a number, or the name of one.
struct Size {
    std::string name;  // "" = a number
    int64_t number = 0;

    bool named() const { return !name.empty(); }
    bool operator==(const Size& other) const {
        return name == other.name && number == other.number;
    }
    std::string shown() const { return named() ? name : std::to_string(number); }
};
using Shape = std::vector<Size>;

enum class Dtype { float32, float16, int32, int64 };

// Bytes of one number.
size_t width(Dtype dtype);
const char* name_of(Dtype dtype);

struct TensorSpec {
    std::string name;
    std::string role;
    Dtype dtype = Dtype::float32;
    Shape shape;
};

struct ProgramEntry {
    std::string file;
    std::vector<TensorSpec> inputs;
    std::vector<TensorSpec> outputs;
    std::map<std::string, std::string> updates;  // output -> input whose buffer it replaces

    // Either kind, by name; nullptr = it has none.
    const TensorSpec* tensor(const std::string& name) const;
    bool is_input(const std::string& name) const;
};
using Programs = std::map<std::string, ProgramEntry>;

struct BufferSpec {
    std::string name;
    std::string role;
    Dtype dtype = Dtype::float32;
    Shape shape;
    std::optional<int64_t> layer;
    std::optional<std::string> group;
    size_t axis = 0;
    std::optional<Pair> saved;
};

struct Column {
    std::string name;
    std::string role;
    Dtype dtype = Dtype::float32;
    std::vector<int64_t> shape;  // of one row
    std::optional<int64_t> layer;
};

struct Group {
    std::string name;
    std::string used;
    std::string kept;
    Size slots;
    std::vector<int64_t> layers;
    std::optional<std::string> align;
};

enum class Ids { text, catalyst, newest };

struct Over {
    std::string most;
    std::optional<Ids> ids;
    std::optional<std::string> count;
    std::optional<Pair> rows;
};

// A buffer: all of it, or `count` rows from `first` on.
struct Bound {
    std::string buffer;
    std::string first;  // "" = all of it
    std::string count;
};

// A counter, or `count` numbers that begin with it.
struct Counted {
    std::string first;
    std::string count;  // "" = one number
};

// What a block, or a run, does with the archive.
struct ArchiveUse {
    std::map<std::string, Pair> load;           // buffer -> column, first row of the buffer
    std::map<std::string, std::string> gather;  // buffer -> column
    std::map<std::string, std::string> store;   // column -> buffer
};

struct Run : ArchiveUse {
    std::string run;
    std::optional<std::string> one;
    std::vector<int64_t> each;
    std::map<std::string, Bound> bind;
    std::map<std::string, Counted> ints;
    std::map<std::string, std::string> read;
    std::vector<Pair> swap;
};

struct Copied {
    std::string buffer;
    std::string from;
    std::string to;
};

struct Block : ArchiveUse {
    std::vector<Run> runs;
    std::optional<Over> over;
    std::optional<Pair> when;
    Names grow;
    std::optional<std::string> append;
    std::vector<Copied> after;
    std::vector<Pair> swap;
    Names add;
    bool lend = false;
    std::optional<std::string> count;
    std::map<std::string, std::string> set;
};
using Blocks = std::vector<Block>;

struct Schedule {
    Blocks read, cycle, logits, nll, flush, recall;
    std::map<std::string, Blocks> compact;
    std::vector<Pair> marks;
    bool log = false;

    // All lists, each with its name.
    std::vector<std::pair<std::string, const Blocks*>> lists() const;
};

struct Turns {
    std::string begin;
    std::optional<Pair> system, user, assistant;
    std::string prompt;
    std::optional<std::string> default_system;
    bool strip = false;
};

struct Catalyst {
    std::vector<int32_t> ids;
    int64_t beginning = 0;  // 0 = the ids
};

struct TextFacts {
    std::vector<int32_t> prefix, ends, separator, special;
    Names stops;
    std::optional<Catalyst> catalyst;
    std::optional<Turns> turns;
};

struct FileEntry {
    int64_t bytes = 0;
    std::string sha256;
};

struct Built {
    std::string target;
    Dtype cache_dtype = Dtype::float32;
    std::string cpu;
    Programs programs;
};

// Sizes of the cache, as compiled or lowered; entries per KV head.
struct CacheSizes {
    int64_t capacity = 2048, budget = 1024, chunk_size = 256;
    int64_t catalyst_size = 64, sink_size = 4, recent_size = 64;
    std::string positions = "contiguous";
};

struct Manifest {
    std::string target, cpu, precision = "fp32", policy, model_name, architecture;
    bool policy_has_seed = false, has_heads = false;
    std::vector<Built> also;
    CacheSizes cache;
    int64_t vocab_size = 0;
    std::vector<int64_t> kv_heads;  // of each layer
    Numbers constants, counters;
    std::vector<Group> groups;
    std::vector<BufferSpec> buffers;
    Schedule schedule;
    std::vector<Column> archive;
    TextFacts text;
    Programs programs;
    std::map<std::string, FileEntry> files;
    std::string fingerprint;

    const BufferSpec* buffer(const std::string& name) const;
    Names targets() const;
    // For one of its targets alone. Throws Error (artifact) where it was not compiled for it.
    Manifest for_target(const std::string& name) const;
};

// Reads and checks manifest.json of a folder; opens no other file.
//
// Throws Error (artifact): the folder is no artifact, or the manifest is newer, damaged, has a field
// that this version does not know, or contradicts itself.
Manifest read_manifest(const std::string& folder);

// The same from the text of the file; errors do not name it.
Manifest parse_manifest(const std::string& data);

// A whole file. Throws Error (artifact) where it cannot be read.
std::string read_file(const std::string& path);

}  // namespace lcc
