// The functions of lcc.h that concern the library and models.

#include <algorithm>
#include <cstring>
#include <tuple>

#include "api/handles.h"
#include "core/resident.h"
#include "session/golden.h"

#ifndef LCC_VERSION
#define LCC_VERSION "0.0.0"
#endif

namespace lcc {

namespace {

thread_local std::string last_message;

}  // namespace

void set_message(const std::string& message) noexcept {
    try {
        last_message = message;
    } catch (...) {
        last_message.clear();
    }
}

const char* message_of_thread() noexcept { return last_message.c_str(); }

lcc_status status_of_exception(std::string& message) noexcept {
    try {
        throw;
    } catch (const Stopped&) {
        return LCC_STOPPED;
    } catch (const Error& error) {
        message = error.what();
        return error.status();
    } catch (const std::bad_alloc&) {
        message = "the system has no memory left";
        return LCC_ERROR_MEMORY;
    } catch (const std::exception& error) {
        message = std::string("a mistake in lcc: ") + error.what() + "; please report it";
        return LCC_ERROR_INTERNAL;
    } catch (...) {
        message = "a mistake in lcc: an unknown exception; please report it";
        return LCC_ERROR_INTERNAL;
    }
}

lcc_status told(lcc_status status, const std::string& message) noexcept {
    if (status > LCC_OK && status < LCC_DONE) {
        set_message(message);
        log_line(LCC_LOG_ERROR, message);
    }
    return status;
}

std::string_view text_of(const char* text, size_t length, const char* name) {
    wanted(text, name);
    return {text, length == LCC_NUL ? std::strlen(text) : length};
}

}  // namespace lcc

using namespace lcc;

extern "C" {

const char* lcc_version(void) { return LCC_VERSION; }

int32_t lcc_format_version(void) { return static_cast<int32_t>(FORMAT_VERSION); }

const char* lcc_error_message(void) { return message_of_thread(); }

const char* lcc_session_error_message(const lcc_session* session) {
    return session == nullptr ? "" : session->message.c_str();
}

const char* lcc_status_name(lcc_status status) {
    static const char* const names[] = {
        "LCC_OK",          "LCC_ERROR_CONFIG",      "LCC_ERROR_TARGET", "LCC_ERROR_ARTIFACT",
        "LCC_ERROR_ARCHIVE", "LCC_ERROR_CACHE",     "LCC_ERROR_MEMORY", "LCC_ERROR_BUSY",
        "LCC_ERROR_UNSUPPORTED", "LCC_ERROR_GOLDEN", "LCC_ERROR_INTERNAL", "LCC_ERROR_TRUST"};
    if (status == LCC_DONE || status == LCC_STOPPED) {
        return status == LCC_DONE ? "LCC_DONE" : "LCC_STOPPED";
    }
    return status >= 0 && status <= LCC_ERROR_TRUST ? names[status] : "unknown";
}

void lcc_set_log(lcc_log_fn log, void* user, int32_t level) {
    call([&] { set_log(log, user, level); });
}

void lcc_model_options_init(lcc_model_options* options) {
    if (options != nullptr) {
        *options = lcc_model_options{sizeof *options, nullptr, nullptr, 0, 0, 0, 0};
    }
}

lcc_status lcc_model_open(const char* path, const lcc_model_options* options, lcc_model** model) {
    return call([&] {
        wanted(model, "model");
        *model = nullptr;
        wanted(path, "path");
        const auto given = options_of(options, lcc_model_options_init, "lcc_model_options");
        ModelOptions how;
        how.target = given.target == nullptr ? "" : given.target;
        how.engine.library = given.engine_library == nullptr ? "" : given.engine_library;
        how.engine.threads = given.threads;
        how.engine.mapped = given.mapped != 0;
        how.hashes = given.verify_sizes_only == 0;
        how.allow_native = given.allow_native != 0;
        auto handle = std::make_unique<lcc_model>();
        handle->model = open_model(path, how);
        if (handle->model->manifest.text.turns && handle->model->manifest.text.turns->user) {
            std::tie(handle->before, handle->after) = user_turn(handle->model->manifest);
        }
        *model = handle.release();
    });
}

void lcc_model_close(lcc_model* model) {
    delete model;
    trim();
}

lcc_status lcc_model_get_info(const lcc_model* model, lcc_model_info* info) {
    return call([&] {
        wanted(model, "model");
        const Manifest& manifest = model->model->manifest;
        const bool reads = std::any_of(
            manifest.schedule.cycle.begin(), manifest.schedule.cycle.end(),
            [](const Block& block) { return block.over && block.over->ids == Ids::catalyst; });
        lcc_model_info all{};
        all.name = manifest.model_name.c_str();
        all.architecture = manifest.architecture.c_str();
        all.target = manifest.target.c_str();
        all.policy = manifest.policy.c_str();
        all.precision = manifest.precision.c_str();
        all.fingerprint = manifest.fingerprint.c_str();
        all.vocab_size = static_cast<int32_t>(manifest.vocab_size);
        all.layers = static_cast<int32_t>(manifest.kv_heads.size());
        all.capacity = manifest.cache.capacity;
        all.budget = manifest.cache.budget;
        all.chunk_size = manifest.cache.chunk_size;
        all.knows_text = model->model->tokenizer != nullptr;
        all.knows_chat = manifest.text.turns.has_value() && all.knows_text;
        all.reads_catalyst = reads;
        all.has_archive = !manifest.archive.empty();
        all.load_seconds = model->model->load_seconds;
        give(info, all, "info");
    });
}

lcc_status lcc_user_turn(const lcc_model* model, const char** before, const char** after) {
    return call([&] {
        wanted(model, "model");
        wanted(before, "before");
        wanted(after, "after");
        user_turn(model->model->manifest);  // reports that there is none
        *before = model->before.c_str();
        *after = model->after.c_str();
    });
}

lcc_status lcc_encode(const lcc_model* model, const char* text, size_t length, int32_t plain,
                      int32_t* ids, size_t capacity, size_t* count) {
    return call([&] {
        wanted(model, "model");
        wanted(count, "count");
        const std::string_view all = text_of(text, length, "text");
        const TokenIds found =
            model->model->text().encode(all, plain != 0 ? Reading::PLAIN : Reading::TOKENS);
        if (capacity > 0) {
            wanted(ids, "ids");
        }
        std::copy_n(found.begin(), std::min(capacity, found.size()), ids);
        *count = found.size();
    });
}

lcc_status lcc_decode(const lcc_model* model, const int32_t* ids, size_t count, char* text,
                      size_t capacity, size_t* length) {
    return call([&] {
        wanted(model, "model");
        wanted(length, "length");
        if (count > 0) {
            wanted(ids, "ids");
        }
        const Tokenizer& tokenizer = model->model->text();
        model->model->check_ids(ids, count, "ids");
        const std::string all = tokenizer.decode(TokenIds(ids, ids + count));
        if (capacity > 0) {
            wanted(text, "text");
        }
        std::copy_n(all.begin(), std::min(capacity, all.size()), text);
        *length = all.size();
    });
}

lcc_status lcc_mark(const lcc_model* model, const char* text, size_t length, char* marked,
                    size_t capacity, size_t* count) {
    return call([&] {
        wanted(model, "model");
        wanted(count, "count");
        const std::string all = model->model->text().mark(text_of(text, length, "text"));
        if (capacity > 0) {
            wanted(marked, "marked");
        }
        std::copy_n(all.begin(), std::min(capacity, all.size()), marked);
        *count = all.size();
    });
}

lcc_status lcc_check_golden(const lcc_model* model) {
    return call([&] {
        wanted(model, "model");
        check_golden(model->model->folder, model->model->manifest, *model->model->engine);
    });
}

}  // extern "C"
