#include "targets.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace lcc::fuzz {

ScratchFile::ScratchFile(const std::string& name, std::string_view data)
    : path_((std::filesystem::temp_directory_path() /
             ("lcc-fuzz-" + std::to_string(::getpid()) + "-" + name))
                .string()) {
    std::ofstream file(path_, std::ios::binary);
    file.write(data.data(), static_cast<std::streamsize>(data.size()));
}

ScratchFile::~ScratchFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
}

Manifest known_manifest() {
    return parse_manifest(read_file(std::string(LCC_FUZZ_CORPUS) + "/manifest/consensus.json"));
}

void put_number(std::string& bytes, size_t place, uint64_t value, int size) {
    for (int i = 0; i < size; ++i) {
        bytes[place + static_cast<size_t>(i)] = static_cast<char>(value >> 8 * i & 0xFF);
    }
}

}  // namespace lcc::fuzz
