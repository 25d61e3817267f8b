// The functions of lcc.h that concern tokenizers.

#include <algorithm>

#include "api/handles.h"
#include "text/decoder.h"
#include "text/encoder.h"

using namespace lcc;

struct lcc_tokenizer {
    std::shared_ptr<const Tokenizer> tokenizer;
};

struct lcc_encoder {
    lcc_encoder(std::shared_ptr<const Tokenizer> of, Reading how)
        : tokenizer(std::move(of)), encoder(*tokenizer, how) {}

    std::shared_ptr<const Tokenizer> tokenizer;  // outlives its handle
    TextEncoder encoder;
    std::vector<int32_t> ids;  // of the last call
};

namespace {

Reading reading_of(int32_t number) {
    switch (number) {
        case LCC_READ_TOKENS:
            return Reading::TOKENS;
        case LCC_READ_PLAIN:
            return Reading::PLAIN;
        case LCC_READ_MARKED:
            return Reading::MARKED;
        default:
            throw config_error("reading is " + std::to_string(number) + ", wanted one of LCC_READ_*");
    }
}

// `step` appends ids to those of this call.
template <typename Function>
lcc_status encode(lcc_encoder* encoder, const int32_t** ids, size_t* count, Function step) {
    return call([&] {
        wanted(encoder, "encoder");
        wanted(ids, "ids");
        wanted(count, "count");
        encoder->ids.clear();
        step();
        *ids = encoder->ids.data();
        *count = encoder->ids.size();
    });
}

}  // namespace

extern "C" {

lcc_status lcc_tokenizer_open(const char* path, lcc_tokenizer** tokenizer) {
    return call([&] {
        wanted(tokenizer, "tokenizer");
        *tokenizer = nullptr;
        wanted(path, "path");
        *tokenizer = new lcc_tokenizer{Tokenizer::open(path)};
    });
}

void lcc_tokenizer_close(lcc_tokenizer* tokenizer) { delete tokenizer; }

lcc_status lcc_tokenizer_added(const lcc_tokenizer* tokenizer, size_t number, int32_t* id,
                               const char** text, size_t* length, int32_t* special) {
    bool done = false;
    const lcc_status status = call([&] {
        wanted(tokenizer, "tokenizer");
        for (const void* each : {static_cast<const void*>(id), static_cast<const void*>(text),
                                 static_cast<const void*>(length), static_cast<const void*>(special)}) {
            wanted(each, "a result");
        }
        const Tables& tables = tokenizer->tokenizer->tables();
        done = number >= tables.added.size / 2;
        if (done) {
            return;
        }
        const std::uint32_t token = tables.added[2 * number];
        const std::string_view found = tables.token(token);
        *id = static_cast<int32_t>(token);
        *text = found.data();
        *length = found.size();
        *special = tokenizer->tokenizer->is_special(*id);
    });
    return done ? LCC_DONE : status;
}

lcc_status lcc_tokenizer_decode(const lcc_tokenizer* tokenizer, const int32_t* ids, size_t count,
                                int32_t special, char* text, size_t capacity, size_t* length) {
    return call([&] {
        wanted(tokenizer, "tokenizer");
        wanted(length, "length");
        if (count > 0) {
            wanted(ids, "ids");
        }
        if (capacity > 0) {
            wanted(text, "text");
        }
        const std::string all = tokenizer->tokenizer->decode({ids, ids + count}, special != 0);
        std::copy_n(all.begin(), std::min(capacity, all.size()), text);
        *length = all.size();
    });
}

lcc_status lcc_encoder_open(const lcc_tokenizer* tokenizer, int32_t reading, lcc_encoder** encoder) {
    return call([&] {
        wanted(encoder, "encoder");
        *encoder = nullptr;
        wanted(tokenizer, "tokenizer");
        *encoder = new lcc_encoder(tokenizer->tokenizer, reading_of(reading));
    });
}

lcc_status lcc_encoder_feed(lcc_encoder* encoder, const char* text, size_t length,
                            const int32_t** ids, size_t* count) {
    return encode(encoder, ids, count,
                  [&] { encoder->encoder.feed(text_of(text, length, "text"), encoder->ids); });
}

lcc_status lcc_encoder_finish(lcc_encoder* encoder, const int32_t** ids, size_t* count) {
    return encode(encoder, ids, count, [&] { encoder->encoder.finish(encoder->ids); });
}

void lcc_encoder_close(lcc_encoder* encoder) { delete encoder; }

}  // extern "C"
