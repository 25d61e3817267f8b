#include "arguments.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

const char* const USAGE =
    "usage: lcc-run ARTIFACT.lcc [OPTIONS]\n"
    "\n"
    "  --golden                 reproduce golden.json; exit with 1 where a number differs\n"
    "  -f, --file PATH          UTF-8 text to read first, may be repeated; - = stdin\n"
    "  -p, --prompt TEXT        the question\n"
    "  --ids 1,2,3              token ids to read in place of text; the answer is ids, too\n"
    "  -n, --max-new-tokens N   length of the answer (256)\n"
    "  --raw                    no chat template, and control tokens in --prompt are obeyed\n"
    "  --control-tokens         obey control tokens, such as <|im_end|>, in --file\n"
    "  --catalyst TEXT          what evictions look for: a text, or `question`\n"
    "  --catalyst-ids 1,2,3     the same as ids\n"
    "  --load PATH              go on from a state made by --save\n"
    "  --save PATH              write the state, after the text, before the question\n"
    "  --archive PATH           a file that takes what evictions drop, for the question to recall\n"
    "  --archive-limit BYTES, --archive-dtype float16|float32|int8, --no-recall\n"
    "  --temperature X, --top-k N, --top-p X, --min-p X, --repetition-penalty X, --seed N\n"
    "  --stop TEXT              end the answer before this text, may be repeated\n"
    "  --capacity N, --budget N, --chunk-size N, --threads N, --target NAME, --mapped\n"
    "  --engine PATH            ONNX Runtime's library, else the variable LCC_ONNXRUNTIME; or TVM's\n"
    "                           folder, else LCC_TVM\n"
    "  --allow-native           let it run machine code of its own: targets tvm:*\n"
    "  -v, --verbose            times on stderr\n";

namespace {

int64_t whole(const std::string& name, const std::string& text) {
    char* end = nullptr;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0') {
        throw UsageError(name + " " + text + ": wanted a whole number");
    }
    return value;
}

}  // namespace

Arguments::Arguments(int count, char** values) {
    static const std::vector<std::string> flags{"--golden", "--raw",     "--no-recall",
                                                "--mapped", "--verbose", "--help",
                                                "--control-tokens", "--allow-native"};
    static const std::map<std::string, std::string> shorter{{"-f", "--file"},
                                                            {"-p", "--prompt"},
                                                            {"-n", "--max-new-tokens"},
                                                            {"-v", "--verbose"},
                                                            {"-h", "--help"}};
    for (int i = 1; i < count; ++i) {
        std::string name = values[i];
        const auto known = shorter.find(name);
        name = known == shorter.end() ? name : known->second;
        if (name.compare(0, 2, "--") != 0) {
            if (!artifact.empty()) {
                throw UsageError(name + ": one artifact is enough");
            }
            artifact = name;
            continue;
        }
        bool is_flag = false;
        for (const std::string& flag : flags) {
            is_flag = is_flag || flag == name;
        }
        if (!is_flag && std::strstr(USAGE, (name + " ").c_str()) == nullptr) {
            throw UsageError(name + ": no such option");
        }
        if (!is_flag && i + 1 == count) {
            throw UsageError(name + ": wanted a value behind it");
        }
        given_[name].push_back(is_flag ? "" : values[++i]);
    }
}

std::vector<std::string> Arguments::all(const std::string& name) const {
    return has(name) ? given_.at(name) : std::vector<std::string>();
}

const char* Arguments::text(const std::string& name) const {
    return has(name) ? given_.at(name).back().c_str() : nullptr;
}

int64_t Arguments::integer(const std::string& name, int64_t absent) const {
    return has(name) ? whole(name, given_.at(name).back()) : absent;
}

double Arguments::number(const std::string& name, double absent) const {
    if (!has(name)) {
        return absent;
    }
    char* end = nullptr;
    const double value = std::strtod(text(name), &end);
    if (end == text(name) || *end != '\0') {
        throw UsageError(name + " " + text(name) + ": wanted a number");
    }
    return value;
}

std::vector<int32_t> Arguments::ids(const std::string& name) const {
    std::vector<int32_t> found;
    std::string rest = has(name) ? text(name) : "";
    while (!rest.empty()) {
        const size_t comma = std::min(rest.find(','), rest.size());
        found.push_back(static_cast<int32_t>(whole(name, rest.substr(0, comma))));
        rest.erase(0, comma + 1);
    }
    return found;
}

void Arguments::check() const {
    if (artifact.empty()) {
        throw UsageError("no artifact; wanted lcc-run ARTIFACT.lcc, and --help for more");
    }
    if (has("--golden")) {
        return;
    }
    const bool reads = has("--file") || has("--ids");
    if (!has("--prompt") && !has("--ids") && !has("--save")) {
        throw UsageError("nothing to answer; give a question with --prompt, or --save the state");
    }
    if (!has("--prompt") && !reads) {
        throw UsageError("nothing to read and nothing to answer; give --file and --prompt");
    }
    for (const char* name : {"--archive-limit", "--archive-dtype", "--no-recall"}) {
        if (has(name) && !has("--archive")) {
            throw UsageError(std::string(name) + " is of an archive; give --archive PATH, too");
        }
    }
}
