// What is fuzzed: each function takes a file as an attacker may have written it, and uses it. An
// lcc::Error refuses it; anything else that is thrown, and what a sanitizer finds, is a mistake.
#pragma once

#include <string>
#include <string_view>

#include "artifact/manifest.h"

namespace lcc::fuzz {

// Each returns why the file was refused, "" = it was not.
std::string manifest(std::string_view data);
std::string text_tables(std::string_view data);
std::string state(std::string_view data);
std::string archive(std::string_view data);
std::string program(std::string_view data);  // weights.bin is listed

// The manifest whose states and archives are read.
Manifest known_manifest();

// A file beside others of the system's, with these bytes, for as long as the object lives.
class ScratchFile {
public:
    ScratchFile(const std::string& name, std::string_view data);
    ~ScratchFile();
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;

    const std::string& path() const { return path_; }

private:
    std::string path_;
};

// Changes a number at a place, lowest byte first.
void put_number(std::string& bytes, size_t place, uint64_t value, int size);

}  // namespace lcc::fuzz
