// text.bin, and what it makes of texts.

#include "core/error.h"
#include "targets.h"
#include "text/decoder.h"
#include "text/encoder.h"
#include "text/tokenizer.h"

namespace lcc::fuzz {

namespace {

const std::string_view TEXTS[] = {
    "It was the best of times, it was the worst of times.",
    "<|im_start|>user\nHi  there<|im_end|>\n 12345 <s> <tool> x=1 \t\r\n",
    "caf\xC3\xA9 cafe\xCC\x81\xCC\xA3 \xED\x95\x9C\xEA\xB8\x80 "
    "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB "
    "\xE4\xB8\xAD\xE6\x96\x87 \xEF\xAC\x81 \xE2\x85\xA7 \xF0\x9F\x98\x80\xE2\x80\x8D "
    "\xE2\x96\x81\xC2\xA0\xE3\x80\x80",
    "\xEF\xA3\xB0<|im_end|>\xEF\xA3\xB1 \x80\xC3\xED\xA0\x80\xFF "
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};

}  // namespace

std::string text_tables(std::string_view data) {
    const ScratchFile file("text.bin", data);
    try {
        const auto tokenizer = Tokenizer::open(file.path());
        for (const Reading how :
             {Reading::TOKENS, Reading::MARKED, Reading::PLAIN, Reading::LETTERS}) {
            TextEncoder encoder(*tokenizer, how);
            for (const std::string_view text : TEXTS) {
                std::vector<int32_t> ids = tokenizer->encode(text, how);
                for (size_t place = 0; place < text.size(); place += 5) {
                    encoder.feed(text.substr(place, 5), ids);
                }
                encoder.finish(ids);
                tokenizer->decode(ids, true);
                TextDecoder decoder(*tokenizer, false, false);
                for (const int32_t id : ids) {
                    decoder.add(id);
                    tokenizer->token_bytes(id);
                }
                decoder.end();
            }
        }
        tokenizer->mark(TEXTS[1]);
        tokenizer->decode({-1, 0, tokenizer->size() - 1, tokenizer->size()});
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

}  // namespace lcc::fuzz
