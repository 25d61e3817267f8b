#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "artifact/check.h"
#include "artifact/fields.h"
#include "artifact/sha256.h"
#include "core/error.h"
#include "core/half.h"
#include "core/state_file.h"
#include "core/state_format.h"

namespace lcc {

namespace {

constexpr int64_t LONGEST_HEADER = int64_t{100} << 20;

std::string read_exactly(std::FILE* file, size_t size) {
    std::string data(size, '\0');
    if (std::fread(&data[0], 1, size, file) != size) {
        throw artifact_error("not a whole state file; save it anew");
    }
    return data;
}

void cast(const Buffer& buffer, const std::string& dtype, const std::string& raw, Tensor& into) {
    if (dtype == name_of(buffer.spec.dtype)) {
        std::memcpy(into.view().data, raw.data(), raw.size());
        return;
    }
    const auto count = static_cast<size_t>(into.view().count());
    for (size_t i = 0; i < count; ++i) {
        if (dtype == "float16") {
            uint16_t half = 0;
            std::memcpy(&half, raw.data() + 2 * i, 2);
            into.as<float>()[i] = to_float(half);
        } else {
            float value = 0;
            std::memcpy(&value, raw.data() + 4 * i, 4);
            const uint16_t half = to_half(value);
            if (!std::isfinite(to_float(half))) {
                throw config_error(buffer.spec.name +
                                   " holds numbers too large for float16; keep them in float32");
            }
            into.as<uint16_t>()[i] = half;
        }
    }
}

}  // namespace

Json StateFile::load(const std::string& path, Executor& executor,
                     const std::function<void(const Json&)>& check_notes) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                               std::fclose);
    if (file == nullptr || std::fseek(file.get(), 0, SEEK_END) != 0) {
        throw artifact_error(path + ": not a whole state file (" + std::strerror(errno) +
                             "); save it anew");
    }
    const int64_t size = std::ftell(file.get());
    std::rewind(file.get());
    try {
        return load_open(file.get(), size, executor, check_notes);
    } catch (const Error& error) {
        throw at(path, error);
    }
}

Json StateFile::load_open(std::FILE* file, int64_t size, Executor& executor,
                          const std::function<void(const Json&)>& check_notes) {
    const std::string length = read_exactly(file, 8);
    int64_t bytes = 0;
    for (int i = 7; i >= 0; --i) {
        bytes = bytes << 8 | static_cast<unsigned char>(length[static_cast<size_t>(i)]);
    }
    if (bytes < 0 || bytes > size - 8 || bytes > LONGEST_HEADER) {
        throw artifact_error("not a whole state file; save it anew");
    }
    std::string header = read_exactly(file, static_cast<size_t>(bytes));
    const Json table = Json::parse(header);
    const auto& tensors = table.fields("the header");
    const auto found = tensors.find("__metadata__");
    if (found == tensors.end()) {
        throw artifact_error("no __metadata__: not a state file of lcc");
    }
    const Fields metadata(found->second, "__metadata__", {"sha256", "lcc"});
    const Page page = read_page(metadata.text("lcc"), executor);
    check_notes(page.notes);
    const std::string dtype = check_table(tensors, executor, page.counters);
    const std::string written = metadata.text("sha256");
    const size_t place = written.size() == 64 ? header.find(written) : std::string::npos;
    if (place == std::string::npos) {
        throw artifact_error("sha256 is no digest of 64 digits; save it anew");
    }
    header.replace(place, 64, std::string(64, '0'));
    Sha256 digest;
    digest.add(header);
    each_tensor(file, executor, page, dtype, &digest, nullptr);
    if (digest.hex() != written || std::fgetc(file) != EOF) {
        throw artifact_error("changed since it was saved (sha256 differs); save it anew");
    }
    Numbers archived;
    if (executor.archive() == nullptr) {
        archived = {{"archiving", 0}, {"archived", 0}, {"archived_to", 0}};
    } else if (!page.archived) {
        executor.archive()->check_new();
        archived = {{"archiving", 1}, {"archived", 0}, {"archived_to", 0}};
    } else {
        archived = {{"archiving", 1},
                    {"archived", executor.archive()->go_back(page.total, page.check)}};
    }
    executor.clear();
    executor.broken_ = true;  // until all is in
    for (const auto& [name, value] : page.counters) {
        executor.numbers_.at(name) = value;
    }
    for (const auto& [name, value] : archived) {
        if (page.counters.count(name) != 0) {
            executor.numbers_.at(name) = value;
        }
    }
    executor.beginning_ = page.beginning;
    std::fseek(file, static_cast<long>(8 + bytes), SEEK_SET);
    each_tensor(file, executor, page, dtype, nullptr,
                [](Buffer& buffer, int64_t first, int64_t rows, const Tensor& tensor) {
                    buffer.tensor->copy_rows_in(buffer.spec.axis, first, rows, tensor.view().data);
                });
    executor.broken_ = false;
    executor.snapshots_.forget();
    executor.begin_turn();
    return page.notes;
}

// The page, of this version and artifact, with counters that this session can have.
StateFile::Page StateFile::read_page(const std::string& text, const Executor& executor) {
    const Json json = Json::parse(text);
    const auto& all = json.fields("lcc");
    const auto version = all.find("version");
    if (version == all.end() || version->second.integer("version") != STATE_VERSION) {
        throw artifact_error(
            "version " +
            (version == all.end() ? "unknown" : std::to_string(version->second.integer("version"))) +
            ", this lcc reads version " + std::to_string(STATE_VERSION));
    }
    Json::Object set = all;  // the archive is null where there was none
    if (set.count("archive") != 0 && set.at("archive").is(Json::Kind::null)) {
        set.erase("archive");
    }
    const Json without_null = Json::object(set);
    const Fields fields(without_null, "lcc", {"version", "artifact", "counters", "sizes",
                                              "beginning", "notes", "archive"});
    if (fields.text("artifact") != executor.manifest().fingerprint) {
        throw artifact_error("made with another artifact; load it with the one that saved it");
    }
    Page page;
    page.counters = fields.map<int64_t>("counters", read_integer);
    page.beginning = fields.list<int32_t>("beginning", read_id);
    page.notes = fields.get("notes");
    Fields(fields.get("sizes"), "sizes", {"capacity", "budget", "chunk_size", "catalyst_size",
                                          "sink_size", "recent_size", "positions"});
    if (const Json* archive = fields.find("archive")) {
        const Json::List& items = archive->items("archive");
        if (items.size() != 2) {
            throw artifact_error("archive: wanted two numbers; save it anew");
        }
        page.archived = true;
        page.total = items[0].integer("archive");
        page.check = items[1].integer("archive");
    }
    const auto used = page.counters.find("used");
    if (used != page.counters.end() && used->second > executor.usable()) {
        throw cache_error(std::to_string(used->second) + " entries, this session has room for " +
                          std::to_string(executor.usable()));
    }
    check_counters(executor.manifest(), executor.numbers_, page.counters);
    if (executor.evicts()) {
        check_protected(page.counters.at("protected"), executor.sizes().recent_size,
                        executor.sizes().budget);
    }
    const auto known = std::min<int64_t>(page.counters.at("tokens"), BEGINNING_TOKENS);
    if (static_cast<int64_t>(page.beginning.size()) != known) {
        throw artifact_error("beginning has " + std::to_string(page.beginning.size()) +
                             " ids; save it anew");
    }
    const std::vector<int64_t> ids(page.beginning.begin(), page.beginning.end());
    check_ids(executor, "beginning", ids.data(), ids.size());
    return page;
}

// The tensors are those that the counters ask for; the dtype of keys and values ("" = there are
// none, or they are as in the cache).
std::string StateFile::check_table(const Json::Object& fields, const Executor& executor,
                                   const Numbers& counters) {
    std::string wrong;
    for (const char* dtype : {"float32", "float16"}) {
        const std::vector<Entry> entries = table(executor, counters, dtype);
        std::string first;  // that differs
        for (const Entry& each : entries) {
            const auto found = fields.find(each.name);
            Json::List shape;
            for (int64_t size : each.shape) {
                shape.push_back(Json::of(size));
            }
            const std::string wanted =
                Json::object({{"dtype", Json::of(code_of(each.dtype))},
                              {"shape", Json::list(shape)},
                              {"data_offsets",
                               Json::list({Json::of(each.begin), Json::of(each.end)})}})
                    .line();
            const std::string got = found == fields.end() ? "absent" : found->second.line();
            if (got != wanted && first.empty()) {
                first = each.name + " is " + got + ", wanted " + wanted + "; save it anew";
            }
        }
        if (first.empty() && fields.size() != entries.size() + 1) {
            first = "there are " + std::to_string(fields.size() - 1) + " tensors, wanted " +
                    std::to_string(entries.size()) + "; save it anew";
        }
        if (first.empty()) {
            return dtype;
        }
        wrong = wrong.empty() ? first : wrong;
    }
    throw artifact_error(wrong);
}

// Reads the tensors of a file, one after the other; each is checked, then handed to `visit`.
void StateFile::each_tensor(std::FILE* file, Executor& executor, const Page& page,
                            const std::string& dtype, Sha256* digest, const Tensors& visit) {
    Numbers numbers = executor.numbers_;
    for (const auto& [name, value] : page.counters) {
        numbers[name] = value;
    }
    executor.buffers_.each_saved(numbers, [&](Buffer& buffer, int64_t first, int64_t rows) {
        const std::string kind =
            is_key_or_value(buffer.spec) ? dtype : std::string(name_of(buffer.spec.dtype));
        Tensor tensor(buffer.spec.dtype, saved_shape(buffer, rows));
        const std::string raw = read_exactly(
            file, static_cast<size_t>(tensor.view().count()) * width_of(kind));
        if (digest != nullptr) {
            digest->add(raw);
        }
        cast(buffer, kind, raw, tensor);
        if (buffer.spec.role == "tokens" && buffer.spec.dtype == Dtype::int64) {
            check_ids(executor, buffer.spec.name, tensor.as<int64_t>(),
                      static_cast<size_t>(tensor.view().count()));
        }
        if (visit) {
            visit(buffer, first, rows, tensor);
        }
    });
}

void StateFile::check_ids(const Executor& executor, const std::string& name, const int64_t* ids,
                          size_t count) {
    for (size_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || ids[i] >= executor.manifest().vocab_size) {
            throw artifact_error(name + ": " + std::to_string(ids[i]) + " is no id of the model");
        }
    }
}

}  // namespace lcc
