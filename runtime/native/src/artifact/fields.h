// The fields of a JSON object, of which none is unknown.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "artifact/json.h"

namespace lcc {

class Fields {
public:
    // `where`: for messages, "" = the page itself. Throws Error (artifact) where the value is no
    // object, or has a field that is not in `known`.
    Fields(const Json& json, std::string where, std::initializer_list<const char*> known);

    // Where a field is, for messages.
    std::string at(const std::string& name) const {
        return where_.empty() ? name : where_ + ": " + name;
    }

    // A field; nullptr, or an error, where it is absent.
    const Json* find(const std::string& name) const;
    const Json& get(const std::string& name) const;

    bool has(const std::string& name) const { return find(name) != nullptr; }
    std::string text(const std::string& name) const { return get(name).text(at(name)); }
    std::string text(const std::string& name, const std::string& absent) const;
    int64_t integer(const std::string& name) const { return get(name).integer(at(name)); }
    int64_t integer(const std::string& name, int64_t absent) const;
    bool boolean(const std::string& name, bool absent) const;

    // Items of a list, each by a function of the item and where it is; absent = none.
    template <typename Item>
    std::vector<Item> list(const std::string& name,
                           const std::function<Item(const Json&, const std::string&)>& read) const {
        std::vector<Item> items;
        if (const Json* json = find(name)) {
            for (const Json& each : json->items(at(name))) {
                items.push_back(read(each, at(name) + "[" + std::to_string(items.size()) + "]"));
            }
        }
        return items;
    }

    // Values of an object by name, likewise.
    template <typename Item>
    std::map<std::string, Item> map(
        const std::string& name,
        const std::function<Item(const Json&, const std::string&)>& read) const {
        std::map<std::string, Item> items;
        if (const Json* json = find(name)) {
            for (const auto& [key, each] : json->fields(at(name))) {
                items.emplace(key, read(each, at(name) + "." + key));
            }
        }
        return items;
    }

private:
    // As the subject of a message.
    std::string what() const { return where_.empty() ? "it" : where_; }

    const Json::Object& fields_;
    std::string where_;
};

// Readers of single values, for `list` and `map`.
std::string read_text(const Json& json, const std::string& where);
int64_t read_integer(const Json& json, const std::string& where);
int32_t read_id(const Json& json, const std::string& where);

}  // namespace lcc
