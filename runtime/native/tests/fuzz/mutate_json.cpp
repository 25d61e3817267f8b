// Changes one value of a page of JSON, so that most inputs are pages, too. For libFuzzer: of
// manifests, and of the page in a saved state.

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "artifact/json.h"
#include "core/error.h"
#include "targets.h"

extern "C" size_t LLVMFuzzerMutate(unsigned char* data, size_t size, size_t most);

namespace {

using lcc::Json;

class Change {
public:
    Change(const Json& page, unsigned seed) : random_(seed) {
        collect(page);
        left_ = below(count_);
    }

    // The value; or, where it is the one to be changed, another one.
    Json of(const Json& json) {
        const bool changes = left_-- == 0;
        switch (json.kind()) {
            case Json::Kind::number: return changes ? number(json) : json;
            case Json::Kind::text: return changes ? Json::of(texts_[below(texts_.size())]) : json;
            case Json::Kind::boolean: return changes ? Json::of(!json.boolean("")) : json;
            case Json::Kind::list: return list(json.items(""), changes);
            case Json::Kind::object: return object(json.fields(""), changes);
            default: return json;
        }
    }

private:
    size_t below(size_t end) { return std::uniform_int_distribution<size_t>(0, end - 1)(random_); }

    void collect(const Json& json) {
        ++count_;
        if (json.is(Json::Kind::text)) {
            texts_.push_back(json.text(""));
        } else if (json.is(Json::Kind::list)) {
            for (const Json& each : json.items("")) {
                collect(each);
            }
        } else if (json.is(Json::Kind::object)) {
            for (const auto& [name, each] : json.fields("")) {
                texts_.push_back(name);
                collect(each);
            }
        }
    }

    Json number(const Json& json) {
        const int64_t some[] = {0, 1, -1, 2, 7, 64, 97, 4096, int64_t{1} << 31, int64_t{1} << 40,
                                INT64_MAX, INT64_MIN};
        const size_t which = below(16);
        if (which < 12) {
            return Json::of(some[which]);
        }
        const int64_t value = json.integer("");
        return Json::of(value > INT64_MAX / 4 || value < INT64_MIN / 4 ? 0
                        : which < 14                                   ? value + 1
                        : which < 15                                   ? value - 1
                                                                       : 2 * value);
    }

    Json list(const Json::List& items, bool changes) {
        Json::List changed;
        for (const Json& each : items) {
            changed.push_back(of(each));
        }
        if (changes && !changed.empty()) {
            const size_t place = below(changed.size()), other = below(changed.size());
            if (below(3) == 0) {
                changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(place));
            } else if (below(2) == 0) {
                changed.push_back(Json(changed[place]));
            } else {
                std::swap(changed[place], changed[other]);
            }
        }
        return Json::list(std::move(changed));
    }

    Json object(const Json::Object& fields, bool changes) {
        Json::Object changed;
        for (const auto& [name, each] : fields) {
            changed.emplace(name, of(each));
        }
        if (changes && !changed.empty()) {
            const auto skipped = static_cast<std::ptrdiff_t>(below(changed.size()));
            const auto place = std::next(changed.begin(), skipped);
            const Json value = place->second;
            if (below(2) == 0) {
                changed.erase(place);
            }
            if (below(2) == 0) {
                changed[texts_[below(texts_.size())]] = value;
            }
        }
        return Json::object(std::move(changed));
    }

    std::mt19937 random_;
    std::vector<std::string> texts_;
    size_t count_ = 0, left_ = 0;
};

std::string changed(std::string_view text, unsigned seed) {
    const Json page = Json::parse(text);
    return Change(page, seed).of(page).line();
}

// The page in the header of a saved state; its digest is made anew by the target.
std::string changed_state(std::string_view data, unsigned seed) {
    size_t length = 0;
    for (size_t i = 0; i < 4 && i < data.size(); ++i) {
        length |= size_t{static_cast<unsigned char>(data[i])} << 8 * i;
    }
    if (data.size() < 8 + length) {
        throw lcc::artifact_error("no state");
    }
    Json header = Json::parse(data.substr(8, length));
    Json& metadata = header.fields("")["__metadata__"];
    Json& page = metadata.fields("")["lcc"];
    page = Json::of(changed(page.text(""), seed));
    std::string text = std::string(8, '\0') + header.line();
    lcc::fuzz::put_number(text, 0, text.size() - 8, 8);
    return text += data.substr(8 + length);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(unsigned char* data, size_t size, size_t most,
                                          unsigned seed) {
    if (seed % 8 != 0) {
        try {
            const std::string_view old(reinterpret_cast<const char*>(data), size);
            const std::string text = old.substr(0, 1) == "{" ? changed(old, seed)
                                                             : changed_state(old, seed);
            if (text.size() <= most) {
                std::memcpy(data, text.data(), text.size());
                return text.size();
            }
        } catch (const lcc::Error&) {  // no page of JSON, or a number that is not whole
        }
    }
    return LLVMFuzzerMutate(data, size, most);
}
