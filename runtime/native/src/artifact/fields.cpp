#include "artifact/fields.h"

#include <limits>
#include <utility>

#include "core/error.h"

namespace lcc {

Fields::Fields(const Json& json, std::string where, std::initializer_list<const char*> known)
    : fields_(json.fields(where.empty() ? "it" : where)), where_(std::move(where)) {
    for (const auto& [name, value] : fields_) {
        bool found = false;
        for (const char* each : known) {
            found = found || name == each;
        }
        if (!found) {
            throw artifact_error(what() + " has a field " + name +
                                 ", which this lcc does not know; install a newer lcc");
        }
        if (value.is(Json::Kind::null)) {
            throw artifact_error(at(name) + " is null; a field that is not set is left out");
        }
    }
}

const Json* Fields::find(const std::string& name) const {
    const auto found = fields_.find(name);
    return found == fields_.end() ? nullptr : &found->second;
}

const Json& Fields::get(const std::string& name) const {
    const Json* json = find(name);
    if (json == nullptr) {
        throw artifact_error(what() + " has no field " + name);
    }
    return *json;
}

std::string Fields::text(const std::string& name, const std::string& absent) const {
    return has(name) ? text(name) : absent;
}

int64_t Fields::integer(const std::string& name, int64_t absent) const {
    return has(name) ? integer(name) : absent;
}

bool Fields::boolean(const std::string& name, bool absent) const {
    return has(name) ? get(name).boolean(at(name)) : absent;
}

std::string read_text(const Json& json, const std::string& where) { return json.text(where); }

int64_t read_integer(const Json& json, const std::string& where) { return json.integer(where); }

int32_t read_id(const Json& json, const std::string& where) {
    const int64_t id = json.integer(where);
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
        throw artifact_error(where + " is " + std::to_string(id) + ", wanted a token id");
    }
    return static_cast<int32_t>(id);
}

}  // namespace lcc
