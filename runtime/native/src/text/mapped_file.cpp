#include "text/mapped_file.h"

#ifdef _WIN32
#define NOMINMAX
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

#include "core/error.h"

namespace lcc {

#ifdef _WIN32

MappedFile::MappedFile(const std::string& path) {
    const int length = MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
    std::wstring wide(static_cast<std::size_t>(length > 0 ? length : 1), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, wide.data(), length);
    const HANDLE file = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr,
                                    OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file == INVALID_HANDLE_VALUE) {
        throw artifact_error(path + ": cannot be opened");
    }
    LARGE_INTEGER size{};
    GetFileSizeEx(file, &size);
    size_ = static_cast<std::size_t>(size.QuadPart);
    HANDLE mapping = nullptr;
    if (size_ > 0) {
        mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
        data_ = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : nullptr;
    }
    if (mapping) {
        CloseHandle(mapping);
    }
    CloseHandle(file);
    if (size_ > 0 && !data_) {
        throw artifact_error(path + ": cannot be mapped");
    }
}

MappedFile::~MappedFile() {
    if (data_) {
        UnmapViewOfFile(data_);
    }
}

#else

MappedFile::MappedFile(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        throw artifact_error(path + ": cannot be opened (" + std::strerror(errno) + ")");
    }
    struct stat status {};
    const bool regular = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    if (regular && status.st_size > 0) {
        size_ = static_cast<std::size_t>(status.st_size);
        data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    }
    const int reason = errno;
    ::close(file);
    if (!regular) {
        throw artifact_error(path + ": not a file");
    }
    if (data_ == MAP_FAILED) {
        data_ = nullptr;
        throw artifact_error(path + ": cannot be mapped (" + std::strerror(reason) + ")");
    }
}

MappedFile::~MappedFile() {
    if (data_) {
        ::munmap(data_, size_);
    }
}

#endif

}  // namespace lcc
