// Runs commands on an archive, for tests that compare it with Python's: a line each on standard
// input, answered by a line `ok ...` or `error STATUS MESSAGE`.
//
//   column NAME ROLE DTYPE [SIZE ...]   a column of the manifest
//   manifest FINGERPRINT CAPACITY
//   open PATH DTYPE LIMIT               LIMIT 0 = none
//   begin COUNT HELD | put COLUMN COUNT FILE | commit
//   append COUNT HELD FILE              FILE: all columns behind one another, as buffers have them
//   read COLUMN FIRST COUNT FILE        writes the rows to FILE
//   take COLUMN FILE [ROW ...]          likewise
//   mark HELD | back TOTAL CHECK | new | clear | state | close
//   largest BYTES                       the system refuses to write files behind so many bytes
//   kill                                ends the process at once
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

#include <sys/resource.h>

#include "core/archive.h"
#include "core/error.h"
#include "core/log.h"

namespace {

using namespace lcc;

Manifest manifest;
std::unique_ptr<Archive> archive;

Dtype dtype_of(const std::string& name) {
    return name == "int64" ? Dtype::int64 : Dtype::float32;
}

const Column& column_of(const std::string& name) {
    for (const Column& column : manifest.archive) {
        if (column.name == name) {
            return column;
        }
    }
    throw config_error("no column " + name);
}

Tensor rows_of(const Column& column, int64_t count) {
    std::vector<int64_t> shape{count};
    shape.insert(shape.end(), column.shape.begin(), column.shape.end());
    return Tensor(column.dtype, shape);
}

void write_file(const std::string& path, const View& view) {
    std::ofstream(path, std::ios::binary)
        .write(view.as<char>(), static_cast<std::streamsize>(view.bytes()));
}

void put(const Column& column, int64_t count, std::istream& file) {
    const Tensor rows = rows_of(column, count);
    file.read(rows.as<char>(), static_cast<std::streamsize>(rows.view().bytes()));
    archive->put(column.name, rows.view());
}

std::string append(int64_t count, int64_t held, const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    archive->begin(count, held);
    for (const Column& column : manifest.archive) {
        put(column, count, file);
    }
    return std::to_string(archive->commit());
}

std::string run(std::istringstream& words) {
    std::string command, name, path, text;
    int64_t one = 0, other = 0;
    words >> command;
    if (command == "column") {
        Column column;
        words >> column.name >> column.role >> text;
        column.dtype = dtype_of(text);
        while (words >> one) {
            column.shape.push_back(one);
        }
        manifest.archive.push_back(column);
    } else if (command == "manifest") {
        words >> manifest.fingerprint >> manifest.cache.capacity;
    } else if (command == "open") {
        ArchiveOptions options;
        words >> options.path >> options.dtype >> options.limit;
        archive = open_archive(manifest, options);
    } else if (command == "begin") {
        words >> one >> other;
        archive->begin(one, other);
    } else if (command == "put") {
        words >> name >> one >> path;
        std::ifstream file(path, std::ios::binary);
        put(column_of(name), one, file);
    } else if (command == "commit") {
        return std::to_string(archive->commit());
    } else if (command == "append") {
        words >> one >> other >> path;
        return append(one, other, path);
    } else if (command == "read") {
        words >> name >> one >> other >> path;
        const Tensor out = rows_of(column_of(name), other);
        archive->read(name, one, out.view());
        write_file(path, out.view());
    } else if (command == "take") {
        words >> name >> path;
        const std::vector<int64_t> wanted{std::istream_iterator<int64_t>(words), {}};
        const auto count = static_cast<int64_t>(wanted.size());
        const Tensor rows(Dtype::int64, {count}), out = rows_of(column_of(name), count);
        std::copy(wanted.begin(), wanted.end(), rows.as<int64_t>());
        archive->take(name, rows.view(), out.view());
        write_file(path, out.view());
    } else if (command == "mark") {
        words >> one;
        const auto [total, check] = archive->mark(one);
        return std::to_string(total) + " " + std::to_string(check);
    } else if (command == "back") {
        words >> one >> other;
        return std::to_string(archive->go_back(one, other));
    } else if (command == "new") {
        archive->check_new();
    } else if (command == "clear") {
        archive->clear();
    } else if (command == "state") {
        return std::to_string(archive->file_bytes()) + (archive->known() ? " known " : " new ") +
               archive->stopped();
    } else if (command == "close") {
        archive.reset();
    } else if (command == "largest") {
        words >> one;
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{static_cast<rlim_t>(one), RLIM_INFINITY};
        setrlimit(RLIMIT_FSIZE, &limit);
    } else if (command == "kill") {
        std::raise(SIGKILL);
    } else {
        throw config_error("unknown command " + command);
    }
    return "";
}

}  // namespace

int main() {
    const auto log = [](void*, int32_t level, const char* message) {
        std::fprintf(stderr, "%d %s\n", level, message);
    };
    lcc::set_log(log, nullptr, LCC_LOG_DEBUG);
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        try {
            const std::string answer = run(words);
            std::cout << "ok " << answer << std::endl;
        } catch (const lcc::Error& error) {
            std::cout << "error " << error.status() << " " << error.what() << std::endl;
        }
    }
}
