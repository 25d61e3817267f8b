// What the handles of the C interface stand for, and how its functions catch what is thrown.
#pragma once

#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "lcc.h"
#include "session/session.h"

struct lcc_model {
    std::shared_ptr<lcc::Model> model;
    std::string before, after;  // of lcc_user_turn
};

struct lcc_session {
    std::unique_ptr<lcc::Session> session;
    std::atomic<bool> busy{false};
    std::atomic<bool> in_hook{false};  // a callback of the present call runs
    std::atomic<std::thread::id> thread{};  // of the present call
    std::string message;               // of the last error
    std::string stopped;               // of lcc_stats
};

namespace lcc {

// Sets the message of this thread.
void set_message(const std::string& message) noexcept;
const char* message_of_thread() noexcept;

// The status of the exception that is being handled, and its message.
lcc_status status_of_exception(std::string& message) noexcept;

// Keeps and logs the message of a call that has failed; returns its status.
lcc_status told(lcc_status status, const std::string& message) noexcept;

// Runs a function; what it throws becomes a status and a message.
template <typename Function>
lcc_status guarded(std::string& message, Function function) noexcept {
    try {
        return function();
    } catch (...) {
        return status_of_exception(message);
    }
}

template <typename Function>
lcc_status call(Function function) noexcept {
    std::string message;
    return told(guarded(message,
                        [&] {
                            function();
                            return LCC_OK;
                        }),
                message);
}

// A call on a session, which serves one at a time. `reads`: it only looks, and is allowed in a
// callback; `feeds`: it is part of a feed piece by piece.
enum class Kind { moves, reads, feeds };

template <typename Function>
lcc_status call(lcc_session* handle, Kind kind, Function function) noexcept {
    if (handle == nullptr) {
        return call([] { throw config_error("session is NULL"); });
    }
    const bool inside = kind == Kind::reads && handle->in_hook &&
                        handle->thread.load() == std::this_thread::get_id();
    if (!inside && handle->busy.exchange(true)) {
        set_message("the session is serving another call; wait until it returns");
        return LCC_ERROR_BUSY;
    }
    if (!inside) {
        handle->thread = std::this_thread::get_id();
        if (kind == Kind::moves) {
            handle->session->reader().stop = false;
        }
    }
    std::string message;
    const lcc_status status = guarded(message, [&]() -> lcc_status {
        if (kind == Kind::moves && handle->session->is_feeding()) {
            throw Error(LCC_ERROR_BUSY, "a text is being fed piece by piece; call lcc_feed_end");
        }
        return function(*handle->session);
    });
    if (told(status, message) > LCC_OK && status < LCC_DONE && !inside) {
        handle->message = message;
    }
    if (!inside) {
        handle->busy = false;
    }
    return status;
}

// A callback of the caller runs while this object lives.
class InHook {
public:
    explicit InHook(lcc_session& handle) : handle_(handle) { handle_.in_hook = true; }
    ~InHook() { handle_.in_hook = false; }

private:
    lcc_session& handle_;
};

// Pointer arguments that must not be NULL.
inline void wanted(const void* pointer, const char* name) {
    if (pointer == nullptr) {
        throw config_error(std::string(name) + " is NULL");
    }
}

// A text of the caller.
std::string_view text_of(const char* text, size_t length, const char* name);

// The caller's struct, or the defaults where it is shorter or NULL. `init` sets the defaults.
template <typename Options>
Options options_of(const Options* given, void (*init)(Options*), const char* name) {
    Options options;
    init(&options);
    if (given == nullptr) {
        return options;
    }
    if (given->size > sizeof(Options) || given->size < sizeof(size_t)) {
        throw config_error(std::string(name) + ": size is " + std::to_string(given->size) +
                           ", this library knows " + std::to_string(sizeof(Options)) +
                           "; set it with " + name + "_init, or install a newer lcc");
    }
    const auto* from = reinterpret_cast<const char*>(given);
    std::copy(from, from + given->size, reinterpret_cast<char*>(&options));
    options.size = sizeof(Options);
    return options;
}

// As much of a result as the caller has room for.
template <typename Result>
void give(Result* to, Result& result, const char* name) {
    wanted(to, name);
    const size_t size = to->size;
    if (size > sizeof(Result) || size < sizeof(size_t)) {
        throw config_error(std::string(name) + ": size is " + std::to_string(size) +
                           ", this library knows " + std::to_string(sizeof(Result)));
    }
    result.size = size;
    const auto* from = reinterpret_cast<const char*>(&result);
    std::copy(from, from + size, reinterpret_cast<char*>(to));
}

}  // namespace lcc
