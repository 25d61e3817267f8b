// The options of lcc-run.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

extern const char* const USAGE;

struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Options by name; each value is read when it is asked for.
class Arguments {
public:
    // Throws UsageError: an option that there is not, or one without its value.
    Arguments(int count, char** values);

    // Throws UsageError where they do not make sense together.
    void check() const;

    bool has(const std::string& name) const { return given_.count(name) != 0; }
    std::vector<std::string> all(const std::string& name) const;
    // The last one of a name; nullptr = it is not given.
    const char* text(const std::string& name) const;
    int64_t integer(const std::string& name, int64_t absent) const;
    double number(const std::string& name, double absent) const;
    std::vector<int32_t> ids(const std::string& name) const;

    std::string artifact;

private:
    std::map<std::string, std::vector<std::string>> given_;
};
