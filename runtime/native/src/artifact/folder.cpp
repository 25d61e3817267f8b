#include "artifact/folder.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "artifact/sha256.h"
#include "core/error.h"

namespace lcc {

namespace {

namespace fs = std::filesystem;

bool lies_in(const fs::path& path, const fs::path& tree) {
    auto part = path.begin();
    for (const fs::path& each : tree) {
        if (part == path.end() || *part != each) {
            return false;
        }
        ++part;
    }
    return true;
}

// The folder, and where the links of a hub's cache lead: blobs/, beside the snapshots/ around it.
std::vector<fs::path> trees(const fs::path& root) {
    std::vector<fs::path> found{root};
    for (fs::path parent = root.parent_path(); parent != parent.parent_path();
         parent = parent.parent_path()) {
        if (parent.filename() == "snapshots") {
            found.push_back(parent.parent_path() / "blobs");
            break;
        }
    }
    return found;
}

std::string sha256_of(const std::string& path) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    std::vector<char> part(size_t{1} << 20);
    Sha256 digest;
    size_t count = 0;
    while (file != nullptr && (count = std::fread(part.data(), 1, part.size(), file.get())) > 0) {
        digest.add(part.data(), count);
    }
    if (file == nullptr || std::ferror(file.get())) {
        throw artifact_error(path + ": cannot be read");
    }
    return digest.hex();
}

}  // namespace

void verify_files(const std::string& folder, const Manifest& manifest, bool hashes) {
    std::error_code none;
    const fs::path root = fs::canonical(fs::u8path(folder), none);
    const std::vector<fs::path> allowed = trees(root);
    for (const auto& [name, entry] : manifest.files) {
        const fs::path path = root / fs::u8path(name);
        const std::string shown = path.u8string();
        const fs::path real = fs::canonical(path, none);
        if (real.empty() || !fs::is_regular_file(real, none)) {
            throw artifact_error(shown + ": missing; copy the whole folder, or compile anew");
        }
        bool inside = false;
        for (const fs::path& tree : allowed) {
            inside = inside || lies_in(real, tree);
        }
        if (!inside) {
            throw artifact_error(shown + ": a link that leaves the artifact's folder");
        }
        const auto size = static_cast<int64_t>(fs::file_size(real, none));
        if (size != entry.bytes) {
            throw artifact_error(shown + ": " + std::to_string(size) +
                                 " bytes, the manifest says " + std::to_string(entry.bytes) +
                                 "; copy it anew");
        }
        if (hashes && sha256_of(shown) != entry.sha256) {
            throw artifact_error(shown +
                                 ": changed since it was written (sha256 differs); copy it anew");
        }
    }
}

}  // namespace lcc
