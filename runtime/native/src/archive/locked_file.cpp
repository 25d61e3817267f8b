#include "archive/locked_file.h"

#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "core/error.h"

namespace lcc {

SystemRefusal::SystemRefusal(int number)
    : std::system_error(number, std::generic_category()),
      text_(std::generic_category().message(number)) {
    if (!text_.empty()) {
        text_[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text_[0])));
    }
}

FileMap& FileMap::operator=(FileMap&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(length_, other.length_);
    return *this;
}

#if defined(_WIN32)

namespace {

[[noreturn]] void refuse() {
    throw unsupported("this library has no archives on Windows; leave the archive out, or use "
                      "the Python runtime");
}

}  // namespace

FileMap::FileMap(int, int64_t, size_t) { refuse(); }
void FileMap::drop() {}
LockedFile::LockedFile(const std::string&) { refuse(); }
LockedFile::~LockedFile() = default;
int64_t LockedFile::size() const { refuse(); }
std::string LockedFile::read(int64_t, size_t) const { refuse(); }
void LockedFile::write(int64_t, const void*, size_t) { refuse(); }
void LockedFile::truncate(int64_t) { refuse(); }
FileMap LockedFile::map(int64_t, size_t) const { refuse(); }
void LockedFile::flush() { refuse(); }

#else

FileMap::FileMap(int file, int64_t offset, size_t length) : length_(length) {
    void* data = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, file, offset);
    if (data == MAP_FAILED) {
        throw SystemRefusal(errno);
    }
    data_ = data;
}

void FileMap::drop() {
    if (data_ != nullptr) {
        ::munmap(data_, length_);
        data_ = nullptr;
    }
}

LockedFile::LockedFile(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code none;
    const fs::path place = fs::u8path(path);
    const fs::path folder = fs::absolute(place, none).parent_path();
    if (!fs::is_directory(folder, none)) {
        throw archive_error("no folder " + place.parent_path().u8string() + "; make it first");
    }
    if (fs::exists(place, none) && !fs::is_regular_file(place, none)) {
        throw archive_error("not a file; give the path of an archive, or of a new file");
    }
    file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file_ < 0) {
        throw SystemRefusal(errno);
    }
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
        const int reason = errno;
        ::close(file_);
        if (reason != EWOULDBLOCK) {
            throw archive_error(std::string("cannot be locked: ") + std::strerror(reason));
        }
        throw archive_error("another session has it open, or arrays of it in use; close that one, "
                            "or give another path");
    }
}

LockedFile::~LockedFile() {
    ::close(file_);
}

int64_t LockedFile::size() const {
    struct stat status {};
    if (::fstat(file_, &status) != 0) {
        throw SystemRefusal(errno);
    }
    return status.st_size;
}

std::string LockedFile::read(int64_t offset, size_t length) const {
    std::string bytes(length, '\0');
    size_t place = 0;
    while (place < length) {
        const ssize_t count = ::pread(file_, &bytes[place], length - place,
                                      offset + static_cast<int64_t>(place));
        if (count < 0 && errno != EINTR) {
            throw SystemRefusal(errno);
        }
        if (count == 0) {
            break;
        }
        place += count > 0 ? static_cast<size_t>(count) : 0;
    }
    bytes.resize(place);
    return bytes;
}

void LockedFile::write(int64_t offset, const void* data, size_t length) {
    auto bytes = static_cast<const char*>(data);
    while (length > 0) {
        const ssize_t count = ::pwrite(file_, bytes, length, offset);
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            throw SystemRefusal(errno);
        }
        bytes += count;
        offset += count;
        length -= static_cast<size_t>(count);
    }
}

void LockedFile::truncate(int64_t size) {
    while (::ftruncate(file_, size) != 0) {
        if (errno != EINTR) {
            throw SystemRefusal(errno);
        }
    }
}

FileMap LockedFile::map(int64_t offset, size_t length) const {
    if (const int64_t now = size(); offset + static_cast<int64_t>(length) > now) {
        throw archive_error("was cut to " + std::to_string(now) +
                            " bytes while it was open; open it again");
    }
    return {file_, offset, length};
}

void LockedFile::flush() {
    if (::fsync(file_) != 0) {
        throw SystemRefusal(errno);
    }
}

#endif

}  // namespace lcc
