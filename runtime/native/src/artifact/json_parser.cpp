#include "artifact/json_parser.h"

#include "core/error.h"

namespace lcc {

namespace {

constexpr int DEEPEST = 100;

}  // namespace

size_t utf8_length(std::string_view text, size_t place) {
    const auto byte = [&](size_t i) -> unsigned {
        return place + i < text.size() ? static_cast<unsigned char>(text[place + i]) : 0u;
    };
    const auto follows = [&](size_t i, unsigned least = 0x80, unsigned most = 0xBF) {
        return byte(i) >= least && byte(i) <= most;
    };
    const unsigned first = byte(0);
    if (place >= text.size()) {
        return 0;
    }
    if (first < 0x80) {
        return 1;
    }
    if (first >= 0xC2 && first <= 0xDF) {
        return follows(1) ? 2 : 0;
    }
    if (first >= 0xE0 && first <= 0xEF) {
        const unsigned least = first == 0xE0 ? 0xA0 : 0x80;
        const unsigned most = first == 0xED ? 0x9F : 0xBF;  // no surrogates
        return follows(1, least, most) && follows(2) ? 3 : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const unsigned least = first == 0xF0 ? 0x90 : 0x80;
        const unsigned most = first == 0xF4 ? 0x8F : 0xBF;
        return follows(1, least, most) && follows(2) && follows(3) ? 4 : 0;
    }
    return 0;
}

void append_utf8(std::string& out, unsigned code) {
    if (code < 0x80) {
        out += static_cast<char>(code);
    } else if (code < 0x800) {
        out += static_cast<char>(0xC0 | (code >> 6));
        out += static_cast<char>(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        out += static_cast<char>(0xE0 | (code >> 12));
        out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
        out += static_cast<char>(0x80 | (code & 0x3F));
    } else {
        out += static_cast<char>(0xF0 | (code >> 18));
        out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
        out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
        out += static_cast<char>(0x80 | (code & 0x3F));
    }
}

void JsonParser::fail(const std::string& what) const {
    throw artifact_error("not JSON: " + what + " at byte " + std::to_string(place_));
}

Json JsonParser::whole() {
    Json json = value(0);
    spaces();
    if (place_ != text_.size()) {
        fail("more text behind the value");
    }
    return json;
}

void JsonParser::spaces() {
    while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') {
        ++place_;
    }
}

void JsonParser::expect(char letter) {
    spaces();
    if (peek() != letter) {
        fail(std::string("no ") + letter);
    }
    ++place_;
}

void JsonParser::word(std::string_view expected) {
    if (text_.substr(place_, expected.size()) != expected) {
        fail("an unknown word");
    }
    place_ += expected.size();
}

Json JsonParser::value(int depth) {
    if (depth > DEEPEST) {
        fail("nested too deeply");
    }
    spaces();
    switch (peek()) {
        case '{': return object(depth);
        case '[': return list(depth);
        case '"': return Json::of(text());
        case 't': word("true"); return Json::of(true);
        case 'f': word("false"); return Json::of(false);
        case 'n': word("null"); return Json();
        default: return number();
    }
}

Json JsonParser::list(int depth) {
    Json::List values;
    expect('[');
    spaces();
    if (peek() == ']') {
        ++place_;
        return Json::list();
    }
    for (;;) {
        values.push_back(value(depth + 1));
        spaces();
        if (peek() != ',') {
            break;
        }
        ++place_;
    }
    expect(']');
    return Json::list(std::move(values));
}

Json JsonParser::object(int depth) {
    Json::Object values;
    expect('{');
    spaces();
    if (peek() == '}') {
        ++place_;
        return Json::object();
    }
    for (;;) {
        spaces();
        std::string name = text();
        expect(':');
        Json each = value(depth + 1);
        if (!values.emplace(name, std::move(each)).second) {
            fail("the name " + name + " twice");
        }
        spaces();
        if (peek() != ',') {
            break;
        }
        ++place_;
    }
    expect('}');
    return Json::object(std::move(values));
}

bool JsonParser::digits() {
    const size_t first = place_;
    while (peek() >= '0' && peek() <= '9') {
        ++place_;
    }
    return place_ > first;
}

Json JsonParser::number() {
    const size_t first = place_;
    place_ += peek() == '-' ? 1 : 0;
    const bool zero = peek() == '0';
    const size_t begin = place_;
    bool fits = digits() && !(zero && place_ - begin > 1);
    if (fits && peek() == '.') {
        ++place_;
        fits = digits();
    }
    if (fits && (peek() == 'e' || peek() == 'E')) {
        ++place_;
        place_ += peek() == '-' || peek() == '+' ? 1 : 0;
        fits = digits();
    }
    if (!fits) {
        fail("no value");
    }
    Json json;
    json.kind_ = Json::Kind::number;
    json.text_ = std::string(text_.substr(first, place_ - first));
    return json;
}

std::string JsonParser::text() {
    std::string out;
    expect('"');
    while (peek() != '"') {
        character(out);
    }
    ++place_;
    return out;
}

void JsonParser::character(std::string& out) {
    if (place_ >= text_.size()) {
        fail("a text without an end");
    }
    if (text_[place_] == '\\') {
        ++place_;
        escape(out);
        return;
    }
    if (static_cast<unsigned char>(text_[place_]) < 0x20) {
        fail("a control character in a text");
    }
    const size_t length = utf8_length(text_, place_);
    if (length == 0) {
        fail("bytes that are no UTF-8");
    }
    out += text_.substr(place_, length);
    place_ += length;
}

unsigned JsonParser::hex4() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++place_) {
        const char letter = peek();
        code *= 16;
        if (letter >= '0' && letter <= '9') {
            code += static_cast<unsigned>(letter - '0');
        } else if (letter >= 'a' && letter <= 'f') {
            code += static_cast<unsigned>(letter - 'a') + 10;
        } else if (letter >= 'A' && letter <= 'F') {
            code += static_cast<unsigned>(letter - 'A') + 10;
        } else {
            fail("a \\u without four digits");
        }
    }
    return code;
}

void JsonParser::escape(std::string& out) {
    const char letter = peek();
    ++place_;
    switch (letter) {
        case '"': case '\\': case '/': out += letter; return;
        case 'b': out += '\b'; return;
        case 'f': out += '\f'; return;
        case 'n': out += '\n'; return;
        case 'r': out += '\r'; return;
        case 't': out += '\t'; return;
        case 'u': break;
        default: fail("an unknown escape");
    }
    unsigned code = hex4();
    if (code >= 0xD800 && code < 0xDC00) {  // the first of a pair of surrogates
        word("\\u");
        const unsigned low = hex4();
        if (low < 0xDC00 || low > 0xDFFF) {
            fail("half of a pair of surrogates");
        }
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
        fail("half of a pair of surrogates");
    }
    append_utf8(out, code);
}

}  // namespace lcc
