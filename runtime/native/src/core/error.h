// Errors: thrown inside of the library, turned into a status at its border.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "lcc.h"

namespace lcc {

// What went wrong, in the user's terms; the status says whose fault it is.
class Error : public std::runtime_error {
public:
    Error(lcc_status status, const std::string& message)
        : std::runtime_error(message), status_(status) {}

    lcc_status status() const noexcept { return status_; }

private:
    lcc_status status_;
};

inline Error config_error(const std::string& message) { return {LCC_ERROR_CONFIG, message}; }
inline Error target_error(const std::string& message) { return {LCC_ERROR_TARGET, message}; }
inline Error artifact_error(const std::string& message) { return {LCC_ERROR_ARTIFACT, message}; }
inline Error archive_error(const std::string& message) { return {LCC_ERROR_ARCHIVE, message}; }
inline Error cache_error(const std::string& message) { return {LCC_ERROR_CACHE, message}; }
inline Error trust_error(const std::string& message) { return {LCC_ERROR_TRUST, message}; }
inline Error unsupported(const std::string& message) { return {LCC_ERROR_UNSUPPORTED, message}; }

// The same error with the place where it happened in front.
inline Error at(const std::string& where, const Error& error) {
    return {error.status(), where + ": " + error.what()};
}

// `a, b, c`: for messages.
template <typename Strings>
std::string joined(const Strings& strings) {
    std::string text;
    for (const std::string& each : strings) {
        text += (text.empty() ? "" : ", ") + each;
    }
    return text;
}

}  // namespace lcc
