#include "core/log.h"

#include <mutex>

namespace lcc {

namespace {

struct Log {
    std::mutex mutex;
    lcc_log_fn log = nullptr;
    void* user = nullptr;
    int32_t level = LCC_LOG_INFO;
};

Log& log_of_process() {
    static Log* log = new Log();  // never destroyed: threads may outlive main
    return *log;
}

}  // namespace

void set_log(lcc_log_fn log, void* user, int32_t level) {
    Log& all = log_of_process();
    const std::lock_guard<std::mutex> lock(all.mutex);
    all.log = log;
    all.user = user;
    all.level = level;
}

void log_line(int32_t level, const std::string& message) noexcept {
    try {
        Log& log = log_of_process();
        const std::lock_guard<std::mutex> lock(log.mutex);
        if (log.log != nullptr && level >= log.level) {
            log.log(log.user, level, message.c_str());
        }
    } catch (...) {  // a mutex that cannot be locked: the line is lost
    }
}

}  // namespace lcc
