// The functions of lcc.h that write.

#include <algorithm>

#include "api/handles.h"

using namespace lcc;

namespace {

template <typename Number>
std::optional<Number> asked(Number value) {  // -1 = not given
    return value == -1 ? std::nullopt : std::optional<Number>(value);
}

GenerateOptions options_given(const lcc_generate_options* options) {
    const auto given = options_of(options, lcc_generate_options_init, "lcc_generate_options");
    GenerateOptions how;
    how.max_new_tokens = asked(given.max_new_tokens);
    how.sampling = {asked(given.temperature), asked(given.top_p), asked(given.min_p),
                    asked(given.repetition_penalty), asked(given.top_k), asked(given.seed)};
    for (size_t i = 0; i < given.stop_count; ++i) {
        wanted(given.stop, "stop");
        wanted(given.stop[i], "stop");
        how.stop.emplace_back(given.stop[i]);
    }
    if (given.ends_given != 0) {
        if (given.ends_count > 0) {
            wanted(given.ends, "ends");
        }
        how.ends = TokenIds(given.ends, given.ends + given.ends_count);
    }
    how.recall = given.no_recall == 0;
    how.prefix = given.no_prefix == 0;
    how.plain = given.plain != 0;
    return how;
}

void start(Session& session, const char* prompt, size_t length,
           const lcc_generate_options* options) {
    std::optional<std::string_view> text;
    if (prompt != nullptr) {
        text = text_of(prompt, length, "prompt");
    }
    session.start_text(text, options_given(options));
}

}  // namespace

extern "C" {

void lcc_generate_options_init(lcc_generate_options* options) {
    if (options != nullptr) {
        *options = lcc_generate_options{};
        options->size = sizeof *options;
        options->max_new_tokens = options->top_k = options->seed = -1;
        options->temperature = options->top_p = options->min_p = -1;
        options->repetition_penalty = -1;
    }
}

lcc_status lcc_generate_start(lcc_session* handle, const char* prompt, size_t length,
                              const lcc_generate_options* options) {
    return call(handle, Kind::moves, [&](Session& session) {
        start(session, prompt, length, options);
        return LCC_OK;
    });
}

lcc_status lcc_generate_start_ids(lcc_session* handle, const int32_t* ids, size_t count,
                                  const lcc_generate_options* options) {
    return call(handle, Kind::moves, [&](Session& session) {
        wanted(ids, "ids");
        session.start_ids(TokenIds(ids, ids + count), options_given(options));
        return LCC_OK;
    });
}

lcc_status lcc_generate_next(lcc_session* handle, const char** piece, size_t* length) {
    return call(handle, Kind::moves, [&](Session& session) -> lcc_status {
        wanted(piece, "piece");
        wanted(length, "length");
        *piece = "";
        *length = 0;
        const std::string* text = session.next_piece();
        if (text == nullptr) {
            return LCC_DONE;
        }
        *piece = text->data();
        *length = text->size();
        return LCC_OK;
    });
}

lcc_status lcc_generate_next_id(lcc_session* handle, int32_t* id) {
    return call(handle, Kind::moves, [&](Session& session) -> lcc_status {
        wanted(id, "id");
        const std::optional<int32_t> next = session.next_id();
        *id = next.value_or(-1);
        return next ? LCC_OK : LCC_DONE;
    });
}

lcc_status lcc_generate(lcc_session* handle, const char* prompt, size_t length,
                        const lcc_generate_options* options, lcc_piece_fn callback, void* user) {
    return call(handle, Kind::moves, [&](Session& session) -> lcc_status {
        if (callback == nullptr) {
            throw config_error("callback is NULL");
        }
        start(session, prompt, length, options);
        while (const std::string* piece = session.next_piece()) {
            const InHook hook(*handle);
            if (callback(user, piece->data(), piece->size()) != 0) {
                return LCC_STOPPED;
            }
        }
        return LCC_OK;
    });
}

lcc_status lcc_chat_start(lcc_session* handle, const lcc_message* messages, size_t count,
                          const lcc_generate_options* options) {
    return call(handle, Kind::moves, [&](Session& session) {
        if (count > 0) {
            wanted(messages, "messages");
        }
        std::vector<Message> all;
        for (size_t i = 0; i < count; ++i) {
            wanted(messages[i].role, "role");
            wanted(messages[i].content, "content");
            all.push_back({messages[i].role, messages[i].content});
        }
        session.start_chat(all, options_given(options));
        return LCC_OK;
    });
}

lcc_status lcc_next_logits(lcc_session* handle, float* logits, size_t capacity, size_t* count) {
    return call(handle, Kind::moves, [&](Session& session) {
        if (capacity > 0) {
            wanted(logits, "logits");
        }
        const auto total = static_cast<size_t>(session.model().manifest.vocab_size);
        const float* found = session.next_logits();
        std::copy_n(found, std::min(capacity, total), logits);
        if (count != nullptr) {
            *count = total;
        }
        return LCC_OK;
    });
}

}  // extern "C"
