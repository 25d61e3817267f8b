// Text to Json; used by Json::parse alone.
#pragma once

#include <string>
#include <string_view>

#include "artifact/json.h"

namespace lcc {

class JsonParser {
public:
    explicit JsonParser(std::string_view text) : text_(text) {}

    Json whole();

private:
    Json value(int depth);
    Json list(int depth);
    Json object(int depth);
    Json number();
    std::string text();
    void escape(std::string& out);
    unsigned hex4();
    void character(std::string& out);
    void word(std::string_view expected);
    void spaces();
    void expect(char letter);
    char peek() const { return place_ < text_.size() ? text_[place_] : '\0'; }
    bool digits();
    [[noreturn]] void fail(const std::string& what) const;

    std::string_view text_;
    size_t place_ = 0;
};

// Whether the bytes from `place` on begin with one character of UTF-8: its length, or 0.
size_t utf8_length(std::string_view text, size_t place);

// The bytes of a character, behind `out`.
void append_utf8(std::string& out, unsigned code);

}  // namespace lcc
