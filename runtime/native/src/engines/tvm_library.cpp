#include "engines/tvm_library.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "core/error.h"
#include "engines/library.h"

namespace lcc::tvm {

namespace {

namespace fs = std::filesystem;

#if defined(_WIN32)
const std::string PREFIX = "", ENDING = ".dll";
#elif defined(__APPLE__)
const std::string PREFIX = "lib", ENDING = ".dylib";
#else
const std::string PREFIX = "lib", ENDING = ".so";
#endif

std::string file_name(const char* name) { return PREFIX + name + ENDING; }

// Folders that may have the libraries: this one, and those of Python's packages in or beside it.
std::vector<fs::path> folders(const fs::path& path) {
    const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
    const fs::path packages = folder.parent_path().parent_path();
    return {folder,
            folder / "lib",
            folder / "tvm_ffi" / "lib",
            folder / "tvm" / "lib",
            folder.parent_path() / "tvm_ffi" / "lib",
            packages / "tvm_ffi" / "lib",
            packages / "tvm" / "lib"};
}

// Where a library lies; "" = nowhere.
std::string find(const std::vector<fs::path>& places, const char* name) {
    std::error_code none;
    for (const fs::path& folder : places) {
        const fs::path path = folder / file_name(name);
        if (fs::is_regular_file(path, none)) {
            return path.u8string();
        }
    }
    return "";
}

// TVM takes the signal of a bad address when it is loaded, to print where it happened. It is the
// program's own: a Java machine lives on it.
class SignalsKept {
public:
#if defined(_WIN32)
    SignalsKept() : before_(std::signal(SIGSEGV, SIG_DFL)) { std::signal(SIGSEGV, before_); }
    ~SignalsKept() { std::signal(SIGSEGV, before_); }

private:
    void (*before_)(int);
#else
    SignalsKept() { sigaction(SIGSEGV, nullptr, &before_); }
    ~SignalsKept() { sigaction(SIGSEGV, &before_, nullptr); }

private:
    struct sigaction before_ {};
#endif
};

void* open(const std::string& path) {
    void* library = open_library(path, true);
    if (library == nullptr) {
        throw target_error(path + ": cannot be loaded (" + library_error() + "); wanted " +
                           WANTED);
    }
    return library;
}

}  // namespace

Libraries open_libraries(const std::string& given) {
    const SignalsKept kept;
    const char* variable = std::getenv("LCC_TVM");
    const std::string path = !given.empty() ? given : variable != nullptr ? variable : "";
    if (path.empty()) {
        const std::string name = file_name("tvm_ffi");
        void* ffi = open_library(name, true);
        if (ffi == nullptr) {
            throw target_error("TVM's runtime is not found (" + library_error() +
                               "); name its folder with --engine, engine_library or LCC_TVM; "
                               "wanted " + WANTED);
        }
        open(file_name("tvm_runtime"));
        open_library(file_name("tvm_runtime_extra"), true);
        return {ffi, name};
    }
    std::error_code none;
    const fs::path place = fs::absolute(fs::u8path(path), none).lexically_normal();
    if (!fs::exists(place, none)) {
        throw target_error(path + ": no such file or folder; wanted the folder of " +
                           file_name("tvm_runtime"));
    }
    const std::vector<fs::path> places = folders(place);
    std::vector<std::string> found;
    for (const char* name : {"tvm_ffi", "tvm_runtime"}) {
        found.push_back(find(places, name));
        if (found.back().empty()) {
            throw target_error(path + ": no " + file_name(name) + " there, nor in tvm/lib or " +
                               "tvm_ffi/lib beside it; wanted " + WANTED);
        }
    }
    const Libraries libraries{open(found[0]), found[0]};
    open(found[1]);
    // Older and newer releases keep the virtual machine in one library or in two.
    const std::string extra = find(places, "tvm_runtime_extra");
    if (!extra.empty()) {
        open(extra);
    }
    return libraries;
}

int cores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

}  // namespace lcc::tvm
