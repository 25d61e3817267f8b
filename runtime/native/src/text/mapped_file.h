// A file that is read where it is mapped.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lcc {

// The bytes of a whole file, for as long as the object lives. Pages that nobody touches are never
// read, and those that were may be dropped again by the system.
class MappedFile {
public:
    // Throws Error (artifact): it cannot be opened or mapped.
    explicit MappedFile(const std::string& path);
    ~MappedFile();

    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

private:
    void* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace lcc
