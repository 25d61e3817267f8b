#include "artifact/json.h"

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "artifact/json_parser.h"
#include "core/error.h"

namespace lcc {

namespace {

const char* name_of(Json::Kind kind) {
    static const char* const names[] = {"null", "a boolean", "a number",
                                        "a text", "a list", "an object"};
    return names[static_cast<int>(kind)];
}

void write_text(std::string& out, const std::string& text) {
    static const char digits[] = "0123456789abcdef";
    out += '"';
    for (char letter : text) {
        const auto byte = static_cast<unsigned char>(letter);
        switch (letter) {
            case '"': out += "\\\""; break;
            case '\\': out += "\\\\"; break;
            case '\b': out += "\\b"; break;
            case '\f': out += "\\f"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            default:
                if (byte < 0x20) {
                    out += "\\u00";
                    out += digits[byte >> 4];
                    out += digits[byte & 15];
                } else {
                    out += letter;
                }
        }
    }
    out += '"';
}

void new_line(std::string& out, int indent) {
    if (indent >= 0) {
        out += '\n';
        out.append(static_cast<size_t>(indent) * 2, ' ');
    }
}

}  // namespace

Json Json::of(bool value) {
    Json json;
    json.kind_ = Kind::boolean;
    json.boolean_ = value;
    return json;
}

Json Json::of(int64_t value) {
    Json json;
    json.kind_ = Kind::number;
    json.text_ = std::to_string(value);
    return json;
}

Json Json::of(std::string value) {
    Json json;
    json.kind_ = Kind::text;
    json.text_ = std::move(value);
    return json;
}

Json Json::list(List values) {
    Json json;
    json.kind_ = Kind::list;
    json.list_ = std::move(values);
    return json;
}

Json Json::object(Object values) {
    Json json;
    json.kind_ = Kind::object;
    json.object_ = std::move(values);
    return json;
}

Json Json::parse(std::string_view text) {
    return JsonParser(text).whole();
}

void Json::wrong(const std::string& where, const char* wanted) const {
    throw artifact_error(where + " is " + name_of(kind_) + ", wanted " + wanted);
}

bool Json::boolean(const std::string& where) const {
    if (!is(Kind::boolean)) {
        wrong(where, "true or false");
    }
    return boolean_;
}

int64_t Json::integer(const std::string& where) const {
    if (!is(Kind::number) || text_.find_first_of(".eE") != std::string::npos) {
        wrong(where, "a whole number");
    }
    errno = 0;
    const long long value = std::strtoll(text_.c_str(), nullptr, 10);
    if (errno != 0) {
        throw artifact_error(where + " is " + text_ + ", wanted a number of 64 bits");
    }
    return value;
}

double Json::number(const std::string& where) const {
    if (!is(Kind::number)) {
        wrong(where, "a number");
    }
    return std::strtod(text_.c_str(), nullptr);
}

const std::string& Json::text(const std::string& where) const {
    if (!is(Kind::text)) {
        wrong(where, "a text");
    }
    return text_;
}

const Json::List& Json::items(const std::string& where) const {
    if (!is(Kind::list)) {
        wrong(where, "a list");
    }
    return list_;
}

const Json::Object& Json::fields(const std::string& where) const {
    if (!is(Kind::object)) {
        wrong(where, "an object");
    }
    return object_;
}

Json::Object& Json::fields(const std::string& where) {
    if (!is(Kind::object)) {
        wrong(where, "an object");
    }
    return object_;
}

std::string Json::line() const {
    std::string out;
    write(out, -1);
    return out;
}

std::string Json::page() const {
    std::string out;
    write(out, 0);
    return out;
}

// `indent`: of this value; -1 = everything in one line.
void Json::write(std::string& out, int indent) const {
    const int inner = indent < 0 ? -1 : indent + 1;
    switch (kind_) {
        case Kind::null: out += "null"; break;
        case Kind::boolean: out += boolean_ ? "true" : "false"; break;
        case Kind::number: out += text_; break;
        case Kind::text: write_text(out, text_); break;
        case Kind::list:
            out += '[';
            for (size_t i = 0; i < list_.size(); ++i) {
                out += i ? "," : "";
                new_line(out, inner);
                list_[i].write(out, inner);
            }
            if (!list_.empty()) {
                new_line(out, indent);
            }
            out += ']';
            break;
        case Kind::object: {
            bool first = true;
            out += '{';
            for (const auto& [name, value] : object_) {
                out += first ? "" : ",";
                first = false;
                new_line(out, inner);
                write_text(out, name);
                out += indent < 0 ? ":" : ": ";
                value.write(out, inner);
            }
            if (!first) {
                new_line(out, indent);
            }
            out += '}';
        }
    }
}

}  // namespace lcc
