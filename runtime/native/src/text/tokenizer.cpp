#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "text/added_stage.h"
#include "text/decoder.h"
#include "text/encoder.h"
#include "text/marked_stage.h"
#include "text/tables.h"
#include "text/utf8.h"

namespace lcc {
namespace {

using Ids = std::vector<std::int32_t>;

// The text that comes to it.
struct Collected : Stage {
    std::string text;

    void put(std::string_view part, bool) override { text += part; }
    void token(std::uint32_t) override {}
    void restart() override {}
};

// As inside a text: nothing is put in front.
Ids behind_a_line(const Tokenizer& tokenizer, std::string_view text) {
    const Ids line = tokenizer.encode("\n", Reading::LETTERS);
    Ids ids = tokenizer.encode("\n" + std::string(text), Reading::LETTERS);
    if (ids.size() >= line.size() && std::equal(line.begin(), line.end(), ids.begin())) {
        ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(line.size()));
        return ids;
    }
    return tokenizer.encode(text, Reading::LETTERS);
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Tables> tables) : tables_(std::move(tables)) {}
Tokenizer::~Tokenizer() = default;

std::unique_ptr<Tokenizer> Tokenizer::open(const std::string& path) {
    return std::unique_ptr<Tokenizer>(new Tokenizer(open_tables(path)));
}

Ids Tokenizer::encode(std::string_view text, Reading how) const {
    Ids ids;
    TextEncoder encoder(*this, how);
    encoder.feed(text, ids);
    encoder.finish(ids);
    return ids;
}

Ids Tokenizer::spell(std::string_view text) const {
    Ids ids = behind_a_line(*this, text);
    const auto added = [&](std::int32_t id) {
        return (tables_->flags[static_cast<std::size_t>(id)] & ADDED) != 0;
    };
    if (!std::any_of(ids.begin(), ids.end(), added)) {
        return ids;
    }
    ids.clear();  // words of the vocabulary lead to it: letter by letter, then
    const std::string valid = utf8_valid(text);
    for (std::size_t place = 0; place < valid.size();) {
        const std::size_t size = utf8_size(valid[place]);
        const Ids own = behind_a_line(*this, std::string_view(valid).substr(place, size));
        ids.insert(ids.end(), own.begin(), own.end());
        place += size;
    }
    return ids;
}

std::string Tokenizer::mark(std::string_view text) const {
    std::string clean = utf8_valid(text);
    for (const std::string_view mark : {MARK_BEGIN, MARK_END}) {
        for (std::size_t place; (place = clean.find(mark)) != std::string::npos;) {
            clean.erase(place, mark.size());
        }
    }
    if (tables_->trees[2].empty()) {
        return clean;
    }
    Collected marked;
    AddedStage stage(*tables_, tables_->trees[2], marked, [&](std::string_view token) {
        ((marked.text += MARK_BEGIN) += token) += MARK_END;
    });
    stage.put(clean, true);
    return marked.text;
}

std::string Tokenizer::decode(const Ids& ids, bool special) const {
    TextDecoder decoder(*this, special);
    std::string text;
    for (const std::int32_t id : ids) {
        text += decoder.add(id);
    }
    return text + decoder.end();
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
    if (id < 0 || id >= size()) {
        return {};
    }
    const auto token = tables_->token(static_cast<std::uint32_t>(id));
    if (tables_->flags[static_cast<std::size_t>(id)] & BYTE) {
        return std::string(1, spelled_byte(token));
    }
    return shown(*tables_, token, false);
}

bool Tokenizer::is_special(std::int32_t id) const {
    return id >= 0 && id < size() && tables_->flags[static_cast<std::size_t>(id)] & SPECIAL;
}

std::int32_t Tokenizer::size() const { return static_cast<std::int32_t>(tables_->ids); }

}  // namespace lcc
