#include "text/decoder.h"

#include "text/utf8.h"

namespace lcc {

char spelled_byte(std::string_view token) {
    const auto digit = [&](std::size_t i) {
        const char each = i < token.size() ? token[i] : '0';
        return each >= 'a' ? each - 'a' + 10 : each >= 'A' ? each - 'A' + 10 : each - '0';
    };
    return static_cast<char>((digit(3) * 16 + digit(4)) & 0xFF);
}

std::string shown(const Tables& tables, std::string_view token, bool first) {
    if (tables.shown_in_bytes || tables.shown_from.empty()) {
        return std::string(token);
    }
    std::string text;
    std::size_t done = 0;
    for (std::size_t place; (place = token.find(tables.shown_from, done)) != token.npos;) {
        text += token.substr(done, place - done);
        text += first && tables.drop_first ? std::string_view() : tables.shown_as;
        done = place + tables.shown_from.size();
    }
    text += token.substr(done);
    return text;
}

TextDecoder::TextDecoder(const Tokenizer& tokenizer, bool special, bool begins)
    : tokenizer_(tokenizer),
      special_(special),
      first_(begins),
      strip_(begins ? tokenizer.tables().strip : 0) {}

std::string TextDecoder::add(std::int32_t id) {
    const Tables& tables = tokenizer_.tables();
    if (id < 0 || id >= tokenizer_.size()) {
        return {};
    }
    const auto index = static_cast<std::uint32_t>(id);
    const std::uint8_t flags = tables.flags[index];
    if (!(flags & PRESENT) || (flags & SPECIAL && !special_)) {
        return {};
    }
    const bool first = first_;
    first_ = false;
    if (tables.shown_in_bytes) {
        kept_ += tables.token(index);
        return whole_characters(false);
    }
    if (flags & BYTE) {
        kept_ += spelled_byte(tables.token(index));
        return stripped(bytes_of_letters());
    }
    std::string text;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
        text += REPLACEMENT;
    }
    kept_.clear();
    return stripped(text + utf8_valid(shown(tables, tables.token(index), first)));
}

std::string TextDecoder::end() {
    if (tokenizer_.tables().shown_in_bytes) {
        return whole_characters(true);
    }
    std::string text;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
        text += REPLACEMENT;
    }
    kept_.clear();
    return stripped(text);
}

std::string TextDecoder::whole_characters(bool last) {
    std::string text;
    std::string_view rest = kept_;
    while (!rest.empty()) {
        const Utf8Head head = utf8_head(rest);
        if (head.incomplete && !last) {
            break;
        }
        text += head.valid ? rest.substr(0, head.size) : REPLACEMENT;
        rest.remove_prefix(head.size);
    }
    kept_ = std::string(rest);
    return text;
}

// Of bytes that stand for themselves, each one that belongs to no character is U+FFFD.
std::string TextDecoder::bytes_of_letters() {
    std::string text;
    std::string_view rest = kept_;
    while (!rest.empty()) {
        const Utf8Head head = utf8_head(rest);
        if (head.incomplete) {
            break;
        }
        for (std::size_t i = 0; !head.valid && i < head.size; ++i) {
            text += REPLACEMENT;
        }
        text += head.valid ? rest.substr(0, head.size) : std::string_view();
        rest.remove_prefix(head.size);
    }
    kept_ = std::string(rest);
    return text;
}

std::string TextDecoder::stripped(std::string text) {
    std::size_t spaces = 0;
    while (strip_ > 0 && spaces < text.size()) {
        strip_ = text[spaces] == ' ' ? strip_ - 1 : 0;
        spaces += text[spaces] == ' ' ? 1 : 0;
    }
    return spaces > 0 ? text.substr(spaces) : text;
}

}  // namespace lcc
