// JSON as values that keep the digits of their numbers, so that a page can be written back as it was.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace lcc {

class Json {
public:
    enum class Kind { null, boolean, number, text, list, object };

    using List = std::vector<Json>;
    using Object = std::map<std::string, Json>;  // sorted, as lcc writes its pages

    Json() = default;
    static Json of(bool value);
    static Json of(int64_t value);
    static Json of(std::string value);
    static Json of(const char* value) { return of(std::string(value)); }
    static Json list(List values = {});
    static Json object(Object values = {});

    // Reads one value that takes the whole of the text. Throws Error (artifact) that says where:
    // bad syntax, bytes that are no UTF-8, a name twice in one object, nesting beyond 100.
    static Json parse(std::string_view text);

    Kind kind() const { return kind_; }
    bool is(Kind kind) const { return kind_ == kind; }

    // The value; throws Error (artifact) `WHERE is KIND, wanted KIND` where it is another one.
    bool boolean(const std::string& where) const;
    int64_t integer(const std::string& where) const;
    double number(const std::string& where) const;
    const std::string& text(const std::string& where) const;
    const List& items(const std::string& where) const;
    const Object& fields(const std::string& where) const;
    Object& fields(const std::string& where);

    // In one line, as the compact form of the Python runtime's pages.
    std::string line() const;
    // With an indent of two spaces, as manifest.json is written.
    std::string page() const;

private:
    friend class JsonParser;
    void write(std::string& out, int indent) const;
    [[noreturn]] void wrong(const std::string& where, const char* wanted) const;

    Kind kind_ = Kind::null;
    bool boolean_ = false;
    std::string text_;  // of a text; the digits of a number
    List list_;
    Object object_;
};

}  // namespace lcc
