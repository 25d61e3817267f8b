#include "artifact/folder.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#if !defined(_WIN32)
#include <sys/stat.h>
#endif

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

// What tells a file from another one at its path; all 0 = there is none.
Stamp stamp_of(const std::string& path) {
    std::error_code error;
    const fs::path place = fs::u8path(path);
    const auto bytes = static_cast<int64_t>(fs::file_size(place, error));
    const auto written = fs::last_write_time(place, error).time_since_epoch().count();
    if (error) {
        return {};
    }
    Stamp stamp{bytes, static_cast<int64_t>(written)};
#if !defined(_WIN32)
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        return {};
    }
    stamp[2] = static_cast<int64_t>(status.st_dev);
    stamp[3] = static_cast<int64_t>(status.st_ino);
    stamp[4] = static_cast<int64_t>(status.st_ctime);  // the system's, which nobody sets back
#endif
    return stamp;
}

}  // namespace

namespace {

Error changed(const std::string& path) {
    return artifact_error(path + ": changed since it was written (sha256 differs); copy it anew");
}

// What a listed file is now: it is there, in one of these folders, and has its size.
Stamp checked(const fs::path& path, const std::vector<fs::path>& allowed, const FileEntry& entry) {
    std::error_code none;
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
    const Stamp stamp = stamp_of(shown);
    const int64_t size = stamp[0];
    if (size != entry.bytes) {
        throw artifact_error(shown + ": " + std::to_string(size) + " bytes, the manifest says " +
                             std::to_string(entry.bytes) + "; copy it anew");
    }
    return stamp;
}

}  // namespace

Stamps verify_files(const std::string& folder, const Manifest& manifest, bool hashes) {
    std::error_code none;
    const fs::path root = fs::canonical(fs::u8path(folder), none);
    const std::vector<fs::path> allowed = trees(root);
    Stamps stamps;
    for (const auto& [name, entry] : manifest.files) {
        const fs::path path = root / fs::u8path(name);
        const std::string shown = path.u8string();
        stamps[shown] = checked(path, allowed, entry);
        if (hashes && sha256_of(shown) != entry.sha256) {
            throw changed(shown);
        }
    }
    return stamps;
}

std::string read_listed(const std::string& folder, const Manifest& manifest,
                        const std::string& name) {
    std::error_code none;
    const fs::path root = fs::canonical(fs::u8path(folder), none), path = root / fs::u8path(name);
    const auto entry = manifest.files.find(name);
    if (entry == manifest.files.end()) {
        throw artifact_error(path.u8string() + ": the manifest does not list it");
    }
    checked(path, trees(root), entry->second);
    std::string data = read_file(path.u8string());
    if (Sha256::of(data) != entry->second.sha256) {
        throw changed(path.u8string());
    }
    return data;
}

void check_unchanged(const Stamps& stamps) {
    for (const auto& [path, stamp] : stamps) {
        if (stamp_of(path) != stamp) {
            throw artifact_error(path +
                                 ": replaced while the artifact was loaded; load it again when "
                                 "nothing writes to its folder");
        }
    }
}

}  // namespace lcc
