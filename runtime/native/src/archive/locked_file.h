// A file of one process at a time: bytes read, written and mapped at offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>

namespace lcc {

// What the system says where it refuses: a full disk, for example. `what` is part of a sentence.
class SystemRefusal : public std::system_error {
public:
    explicit SystemRefusal(int number);
    const char* what() const noexcept override { return text_.c_str(); }

private:
    std::string text_;
};

// Some bytes of a file, to be read, as long as the object lives.
class FileMap {
public:
    FileMap() = default;
    FileMap(int file, int64_t offset, size_t length);
    ~FileMap() { drop(); }
    FileMap(const FileMap&) = delete;
    FileMap& operator=(FileMap&& other) noexcept;

    const char* data() const { return static_cast<const char*>(data_); }
    bool empty() const { return data_ == nullptr; }
    void drop();

private:
    void* data_ = nullptr;
    size_t length_ = 0;
};

// Made where it is not there; nobody else opens it as long as it is open.
class LockedFile {
public:
    // Throws Error (archive): another session has it, or it is no file; SystemRefusal.
    explicit LockedFile(const std::string& path);
    ~LockedFile();
    LockedFile(const LockedFile&) = delete;
    LockedFile& operator=(const LockedFile&) = delete;

    int64_t size() const;

    // The bytes from `offset` on; fewer where the file ends.
    std::string read(int64_t offset, size_t length) const;
    // Writes all of the bytes, or throws SystemRefusal.
    void write(int64_t offset, const void* data, size_t length);
    // Cuts the file to this size, or lengthens it by zeros.
    void truncate(int64_t size);
    // Throws Error (archive) where the file ends before: reading there would end the process.
    FileMap map(int64_t offset, size_t length) const;
    // Waits until the disk has it.
    void flush();

private:
    int file_ = -1;
};

}  // namespace lcc
