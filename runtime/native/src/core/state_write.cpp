#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>

#include "artifact/sha256.h"
#include "core/error.h"
#include "core/half.h"
#include "core/state_file.h"
#include "core/state_format.h"

namespace lcc {

namespace {

// The saved rows of a buffer in the file's dtype, C-contiguous.
std::vector<char> packed(const Buffer& buffer, int64_t first, int64_t rows, const char* dtype) {
    const View whole{nullptr, buffer.spec.dtype, saved_shape(buffer, rows)};
    std::vector<char> data(whole.bytes());
    buffer.tensor->copy_rows_out(buffer.spec.axis, first, rows, data.data());
    if (std::strcmp(dtype, name_of(buffer.spec.dtype)) == 0) {
        return data;
    }
    const auto count = static_cast<size_t>(whole.count());
    const bool narrower = buffer.spec.dtype == Dtype::float32;
    std::vector<char> cast(count * (narrower ? 2 : 4));
    for (size_t i = 0; i < count; ++i) {
        if (narrower) {
            float value = 0;
            std::memcpy(&value, data.data() + 4 * i, 4);
            const uint16_t half = to_half(value);
            if (!std::isfinite(to_float(half))) {
                throw config_error(buffer.spec.name +
                                   " holds numbers too large for float16; keep them in float32");
            }
            std::memcpy(cast.data() + 2 * i, &half, 2);
        } else {
            uint16_t half = 0;
            std::memcpy(&half, data.data() + 2 * i, 2);
            const float value = to_float(half);
            std::memcpy(cast.data() + 4 * i, &value, 4);
        }
    }
    return cast;
}

// A file beside `path` that takes its name when all is written; otherwise it goes away.
class Replacement {
public:
    explicit Replacement(const std::string& path)
        : path_(path), beside_(path + "." + std::to_string(std::random_device()()) + ".partial"),
          file_(std::fopen(beside_.c_str(), "wb"), std::fclose) {
        if (file_ == nullptr) {
            fail();
        }
    }

    ~Replacement() {
        file_.reset();
        std::error_code ignored;
        std::filesystem::remove(std::filesystem::u8path(beside_), ignored);
    }

    void write(const void* data, size_t size) {
        if (size > 0 && std::fwrite(data, 1, size, file_.get()) != size) {  // of nothing: no memory
            fail();
        }
    }

    void finish() {
        if (std::fclose(file_.release()) != 0) {
            fail();
        }
        std::error_code error;
        std::filesystem::rename(std::filesystem::u8path(beside_), std::filesystem::u8path(path_),
                                error);
        if (error) {
            throw artifact_error(path_ + ": cannot be written: " + error.message());
        }
    }

private:
    [[noreturn]] void fail() const {
        throw artifact_error(path_ + ": cannot be written: " + std::strerror(errno));
    }

    std::string path_, beside_;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

Json sizes_page(const CacheSizes& sizes) {
    return Json::object({{"capacity", Json::of(sizes.capacity)},
                         {"budget", Json::of(sizes.budget)},
                         {"chunk_size", Json::of(sizes.chunk_size)},
                         {"catalyst_size", Json::of(sizes.catalyst_size)},
                         {"sink_size", Json::of(sizes.sink_size)},
                         {"recent_size", Json::of(sizes.recent_size)},
                         {"positions", Json::of(sizes.positions)}});
}

}  // namespace

void StateFile::save(const std::string& path, Executor& executor, const Json& notes,
                     const std::string& dtype) {
    if (!dtype.empty() && dtype != "float32" && dtype != "float16") {
        throw config_error("dtype is \"" + dtype + "\", wanted float32 or float16");
    }
    executor.read({});  // what a rewind has left to be read again
    Json::Object counters;
    for (const auto& [name, value] : executor.counters()) {
        counters.emplace(name, Json::of(value));
    }
    Json::List beginning;
    for (int32_t id : executor.beginning()) {
        beginning.push_back(Json::of(static_cast<int64_t>(id)));
    }
    Json archive;  // null
    if (executor.archive() != nullptr) {
        const auto [total, check] = executor.archive()->mark(executor.at("archived"));
        archive = Json::list({Json::of(total), Json::of(check)});
    }
    const Json page = Json::object({{"version", Json::of(STATE_VERSION)},
                                    {"artifact", Json::of(executor.manifest().fingerprint)},
                                    {"counters", Json::object(counters)},
                                    {"sizes", sizes_page(executor.sizes())},
                                    {"beginning", Json::list(beginning)},
                                    {"notes", notes},
                                    {"archive", archive}});
    const std::string blank(64, '0');
    std::string header = "{\"__metadata__\":{\"sha256\":\"" + blank + "\",\"lcc\":" +
                         Json::of(page.line()).line() + "}";
    const std::vector<Entry> entries = table(executor, executor.counters(), dtype);
    for (const Entry& each : entries) {
        Json::List shape;
        for (int64_t size : each.shape) {
            shape.push_back(Json::of(size));
        }
        header += "," + Json::of(each.name).line() + ":{\"dtype\":\"" + code_of(each.dtype) +
                  "\",\"shape\":" + Json::list(shape).line() + ",\"data_offsets\":[" +
                  std::to_string(each.begin) + "," + std::to_string(each.end) + "]}";
    }
    header += "}";
    header.append((8 - header.size() % 8) % 8, ' ');
    const auto each_buffer = [&](const std::function<void(const std::vector<char>&)>& visit) {
        size_t place = 0;
        executor.buffers_.each_saved(
            executor.numbers_, [&](const Buffer& buffer, int64_t first, int64_t rows) {
                visit(packed(buffer, first, rows, entries[place++].dtype.c_str()));
            });
    };
    Sha256 digest;
    digest.add(header);
    each_buffer([&](const std::vector<char>& data) { digest.add(data.data(), data.size()); });
    header.replace(header.find(blank), blank.size(), digest.hex());
    Replacement file(path);
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) {
        length[i] = static_cast<unsigned char>(uint64_t{header.size()} >> (8 * i));
    }
    file.write(length, sizeof length);
    file.write(header.data(), header.size());
    each_buffer([&](const std::vector<char>& data) { file.write(data.data(), data.size()); });
    file.finish();
}

std::vector<StateFile::Entry> StateFile::table(const Executor& executor, const Numbers& counters,
                                               const std::string& dtype) {
    Numbers numbers = executor.numbers_;
    for (const auto& [name, value] : counters) {
        numbers[name] = value;
    }
    std::vector<Entry> entries;
    int64_t end = 0;
    executor.buffers_.each_saved(numbers, [&](const Buffer& buffer, int64_t, int64_t rows) {
        const bool cast = !dtype.empty() && is_key_or_value(buffer.spec);
        Entry entry{buffer.spec.name, cast ? dtype : name_of(buffer.spec.dtype),
                    saved_shape(buffer, rows), end, 0};
        const View view{nullptr, buffer.spec.dtype, entry.shape};
        end += view.count() * static_cast<int64_t>(width_of(entry.dtype));
        entry.end = end;
        entries.push_back(entry);
    });
    return entries;
}

}  // namespace lcc
