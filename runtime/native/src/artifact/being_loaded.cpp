#include "artifact/being_loaded.h"

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>
#endif

namespace lcc {

#if defined(_WIN32)

BeingLoaded::BeingLoaded(const std::string&) {}
BeingLoaded::~BeingLoaded() = default;

#else

namespace {

constexpr std::chrono::milliseconds EXCHANGE_ENDS(1000), LOOK_AGAIN(2);

bool is_at(int file, const std::string& path) {
    struct stat mine {}, there {};
    return ::fstat(file, &mine) == 0 && ::stat(path.c_str(), &there) == 0 &&
           mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

}  // namespace

BeingLoaded::BeingLoaded(const std::string& folder) {
    const auto end = std::chrono::steady_clock::now() + EXCHANGE_ENDS;
    do {
        folder_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder_ < 0) {
            return;
        }
        const bool locked = ::flock(folder_, LOCK_SH | LOCK_NB) == 0;
        if (locked ? is_at(folder_, folder) : errno != EWOULDBLOCK) {
            return;
        }
        ::close(folder_);  // a writer has it, or has put another one there
        folder_ = -1;
        std::this_thread::sleep_for(LOOK_AGAIN);
    } while (std::chrono::steady_clock::now() < end);
}

BeingLoaded::~BeingLoaded() {
    if (folder_ >= 0) {
        ::flock(folder_, LOCK_UN);  // a child that was forked has this file, too
        ::close(folder_);
    }
}

#endif

}  // namespace lcc
