// lcc-run: reads a text of any length and answers a question about it, without Python.
//
// It uses lcc.h alone, and shows how.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "arguments.h"
#include "lcc.h"

namespace {

struct Failed {};  // the message is lcc_error_message()

void check(lcc_status status) {
    if (status != LCC_OK && status != LCC_DONE) {
        throw Failed();
    }
}

std::string read_all(const std::string& path) {
    std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
    if (file == nullptr) {
        throw UsageError(path + ": cannot be read");
    }
    std::string text;
    char part[1 << 16];
    for (size_t count = 0; (count = std::fread(part, 1, sizeof part, file)) > 0;) {
        text.append(part, count);
    }
    if (file != stdin) {
        std::fclose(file);
    }
    return text;
}

// What is opened here is closed, however the command ends.
struct Opened {
    lcc_model* model = nullptr;
    lcc_session* session = nullptr;
    ~Opened() {
        lcc_session_close(session);
        lcc_model_close(model);
    }
};

void open(const Arguments& arguments, Opened& opened) {
    lcc_model_options how;
    lcc_model_options_init(&how);
    how.engine_library = arguments.text("--engine");
    how.target = arguments.text("--target");
    how.threads = static_cast<int32_t>(arguments.integer("--threads", 0));
    how.mapped = arguments.has("--mapped");
    how.allow_native = arguments.has("--allow-native");
    check(lcc_model_open(arguments.artifact.c_str(), &how, &opened.model));
    if (arguments.has("--golden")) {
        return;
    }
    lcc_session_options sizes;
    lcc_session_options_init(&sizes);
    sizes.capacity = arguments.integer("--capacity", 0);
    sizes.budget = arguments.integer("--budget", 0);
    sizes.chunk_size = arguments.integer("--chunk-size", 0);
    sizes.archive_path = arguments.text("--archive");
    sizes.archive_dtype = arguments.text("--archive-dtype");
    sizes.archive_limit = arguments.integer("--archive-limit", 0);
    check(lcc_session_open(opened.model, &sizes, &opened.session));
}

lcc_generate_options drawing(const Arguments& arguments, const std::vector<const char*>& stops) {
    lcc_generate_options how;
    lcc_generate_options_init(&how);
    how.max_new_tokens = arguments.integer("--max-new-tokens", 256);
    how.temperature = arguments.number("--temperature", -1);
    how.top_k = arguments.integer("--top-k", -1);
    how.top_p = arguments.number("--top-p", -1);
    how.min_p = arguments.number("--min-p", -1);
    how.repetition_penalty = arguments.number("--repetition-penalty", -1);
    how.seed = arguments.integer("--seed", -1);
    how.no_recall = arguments.has("--no-recall");
    how.stop = stops.data();
    how.stop_count = stops.size();
    return how;
}

void show_stats(lcc_session* session) {
    lcc_session_stats s;
    s.size = sizeof s;
    check(lcc_stats(session, &s));
    const auto rate = [](int64_t count, double seconds) {
        return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
    };
    std::fprintf(stderr, "load         %.2f s\n", s.load_seconds);
    std::fprintf(stderr, "prefill      %lld tokens, %.2f s, %.1f tokens/s\n",
                 static_cast<long long>(s.prefill_tokens), s.prefill_seconds,
                 rate(s.prefill_tokens, s.prefill_seconds));
    std::fprintf(stderr, "first token  %.0f ms\n", s.first_token_seconds * 1000);
    std::fprintf(stderr, "decode       %lld tokens, %.2f s, %.1f tokens/s\n",
                 static_cast<long long>(s.decode_tokens), s.decode_seconds,
                 rate(s.decode_tokens, s.decode_seconds));
    std::fprintf(stderr, "cycles       %lld, %.2f s\n", static_cast<long long>(s.cycles),
                 s.cycle_seconds);
    std::fprintf(stderr, "cache        %lld of %lld entries for %lld tokens\n",
                 static_cast<long long>(s.used), static_cast<long long>(s.capacity),
                 static_cast<long long>(s.tokens));
    std::fprintf(stderr, "             %.1f of %.1f MB\n", static_cast<double>(s.held_bytes) / 1e6,
                 static_cast<double>(s.cache_bytes) / 1e6);
    std::fprintf(stderr, "peak memory  %.0f MB\n", static_cast<double>(s.peak_rss_bytes) / 1e6);
}

// What others wrote, with its control tokens to be read as plain text.
std::string marked(lcc_model* model, const std::string& text) {
    size_t count = 0;
    std::string found;
    do {
        found.resize(count);
        check(lcc_mark(model, text.data(), text.size(), &found[0], found.size(), &count));
    } while (count > found.size());
    return found;
}

// The text with what stands before the user's words, and the question with what stands around it.
struct Words {
    std::string text, question;
};

Words words(const Arguments& arguments, lcc_model* model) {
    const char *before = "", *after = "";
    if (!arguments.has("--raw") && lcc_user_turn(model, &before, &after) != LCC_OK) {
        before = after = "";  // the model has no template
    }
    Words said;
    for (const std::string& path : arguments.all("--file")) {
        said.text += (said.text.empty() ? "" : "\n\n") + read_all(path);
    }
    const bool begun = !said.text.empty() || arguments.has("--load");
    if (!said.text.empty()) {
        said.text = (arguments.has("--load") ? "\n\n" : before) +
                    (arguments.has("--control-tokens") ? said.text : marked(model, said.text));
    }
    const char* given = arguments.text("--prompt");
    const std::string prompt = given == nullptr ? "" : given;
    said.question = (begun ? "\n\n" : before) +
                    (arguments.has("--raw") ? prompt : marked(model, prompt)) + after;
    return said;
}

int32_t show(void*, const char* piece, size_t length) {
    std::fwrite(piece, 1, length, stdout);
    std::fflush(stdout);
    return 0;
}

void answer_text(const Arguments& arguments, Opened& opened, const lcc_generate_options& drawn) {
    const Words said = words(arguments, opened.model);
    const char *before = "", *after = "";
    const bool turns = !arguments.has("--raw") &&
                       lcc_user_turn(opened.model, &before, &after) == LCC_OK && *before != '\0';
    if (!said.text.empty()) {
        lcc_feed_options how;
        lcc_feed_options_init(&how);
        how.no_prefix = turns;
        how.last = 1;
        check(lcc_feed(opened.session, said.text.data(), said.text.size(), &how, nullptr));
    }
    if (const char* path = arguments.text("--save")) {
        check(lcc_save(opened.session, path, nullptr));
    }
    if (arguments.has("--prompt")) {
        lcc_generate_options how = drawn;
        how.no_prefix = turns;
        check(lcc_generate(opened.session, said.question.data(), said.question.size(), &how, show,
                           nullptr));
        std::fputc('\n', stdout);
    }
}

void answer_ids(const Arguments& arguments, Opened& opened, const lcc_generate_options& drawn) {
    const std::vector<int32_t> ids = arguments.ids("--ids");
    if (const char* path = arguments.text("--save")) {
        lcc_feed_options how;
        lcc_feed_options_init(&how);
        how.last = 1;
        check(lcc_feed_ids(opened.session, ids.data(), ids.size(), &how, nullptr));
        check(lcc_save(opened.session, path, nullptr));
        check(lcc_generate_start(opened.session, nullptr, 0, &drawn));
    } else {
        check(lcc_generate_start_ids(opened.session, ids.data(), ids.size(), &drawn));
    }
    int32_t id = 0;
    lcc_status status = LCC_OK;
    while ((status = lcc_generate_next_id(opened.session, &id)) == LCC_OK) {
        std::printf("%d\n", id);
        std::fflush(stdout);
    }
    check(status);
}

void run(const Arguments& arguments) {
    Opened opened;
    open(arguments, opened);
    if (arguments.has("--golden")) {
        check(lcc_check_golden(opened.model));
        std::puts("golden: all numbers are the same");
        return;
    }
    const std::vector<std::string> stops = arguments.all("--stop");
    std::vector<const char*> texts;
    for (const std::string& stop : stops) {
        texts.push_back(stop.c_str());
    }
    if (const char* path = arguments.text("--load")) {
        check(lcc_load(opened.session, path));
    }
    if (const char* catalyst = arguments.text("--catalyst")) {
        const char* prompt = arguments.text("--prompt");
        const bool asks = std::strcmp(catalyst, "question") == 0 && prompt != nullptr;
        check(lcc_set_catalyst(opened.session, asks ? prompt : catalyst, LCC_NUL));
    }
    if (arguments.has("--catalyst-ids")) {
        const std::vector<int32_t> ids = arguments.ids("--catalyst-ids");
        check(lcc_set_catalyst_ids(opened.session, ids.data(), ids.size()));
    }
    const lcc_generate_options drawn = drawing(arguments, texts);
    if (arguments.has("--ids")) {
        answer_ids(arguments, opened, drawn);
    } else {
        answer_text(arguments, opened, drawn);
    }
    if (arguments.has("--verbose")) {
        show_stats(opened.session);
    }
}

}  // namespace

int main(int count, char** values) {
    try {
        const Arguments arguments(count, values);
        if (arguments.has("--help")) {
            std::fputs(USAGE, stdout);
            return 0;
        }
        arguments.check();
        run(arguments);
        return 0;
    } catch (const UsageError& error) {
        std::fprintf(stderr, "lcc-run: %s\n", error.what());
        return 2;
    } catch (const Failed&) {
        std::fprintf(stderr, "lcc-run: %s\n", lcc_error_message());
        return 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "lcc-run: %s\n", error.what());
        return 1;
    }
}
