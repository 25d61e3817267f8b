// Runs targets on files that are there, without libFuzzer: `replay TARGET FILE ...`. Prints a line
// for each file: "read", or why it was refused.

#include <cstdio>
#include <exception>
#include <functional>
#include <map>

#include "targets.h"

int main(int count, char** words) {
    using namespace lcc;
    const std::map<std::string, std::function<std::string(std::string_view)>> targets{
        {"manifest", fuzz::manifest},
        {"text_tables", fuzz::text_tables},
        {"state", fuzz::state},
        {"archive", fuzz::archive},
        {"program", fuzz::program}};
    const auto target = targets.find(count > 1 ? words[1] : "");
    if (target == targets.end()) {
        std::fprintf(stderr, "usage: replay manifest|text_tables|state|archive|program FILE ...\n");
        return 2;
    }
    for (int i = 2; i < count; ++i) {
        try {
            const std::string refused = target->second(read_file(words[i]));
            std::printf("%s\n", refused.empty() ? "read" : refused.c_str());
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s: %s\n", words[i], error.what());
            return 1;
        }
    }
    return 0;
}
