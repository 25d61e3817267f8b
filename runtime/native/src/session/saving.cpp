// A session in a file: the buffers, and what of its text goes on with them.

#include "core/error.h"
#include "core/state_file.h"
#include "session/session.h"

namespace lcc {

// What the Python runtime's notes.py keeps beside the buffers.
Json Session::notes() const {
    Json::List pending;
    for (int32_t id : reader_.pending()) {
        pending.push_back(Json::of(static_cast<int64_t>(id)));
    }
    Json catalyst;  // null: the policy reads none
    if (executor_.reads_catalyst()) {
        Json::List ids;
        if (reader_.catalyst) {
            for (int32_t id : reader_.catalyst->ids) {
                ids.push_back(Json::of(static_cast<int64_t>(id)));
            }
        }
        catalyst = catalyst_text_  ? Json::of(*catalyst_text_)
                   : ids.empty() ? Json::of(BEGINNING_CATALYST)
                                 : Json::list(ids);
    }
    return Json::object({{"pending", Json::list(pending)},
                         {"conversation", Json()},
                         {"catalyst", catalyst}});
}

void Session::save(const std::string& path, const std::string& dtype) {
    StateFile::save(path, executor_, notes(), dtype);
}

void Session::load(const std::string& path) {
    TokenIds pending;
    std::optional<Json> catalyst;
    Turn turn;
    const auto check = [&](const Json& page) {
        for (const auto& [name, value] : page.fields("notes")) {
            if (name == "pending") {
                for (const Json& each : value.items("notes: pending")) {
                    pending.push_back(static_cast<int32_t>(each.integer("notes: pending")));
                }
            } else if (name == "catalyst" && !value.is(Json::Kind::null)) {
                catalyst = value;
            } else if (name == "conversation" && !value.is(Json::Kind::null)) {
                const auto& talk = value.fields("notes: conversation");
                const auto eos = talk.find("eos"), end = talk.find("end");
                if (end != talk.end() && end->second.is(Json::Kind::number)) {
                    turn.end = end->second.integer("notes: end");
                }
                if (eos != talk.end() && eos->second.is(Json::Kind::text) && !pending.empty()) {
                    turn.ended = pending.back();
                }
            } else if (name != "catalyst" && name != "conversation") {
                throw artifact_error("notes has a field " + name +
                                     ", which this lcc does not know; install a newer lcc");
            }
        }
        try {
            model_->check_ids(pending.data(), pending.size(), "notes: pending");
            if (catalyst && catalyst->is(Json::Kind::text)) {
                catalyst_ids(catalyst->text("catalyst"));
            }
        } catch (const Error& error) {
            throw artifact_error(error.what());
        }
    };
    StateFile::load(path, executor_, check);
    answer_.reset();
    passage_ = Passage();
    turn_ = turn;
    ++reader_.epoch;
    reader_.set_pending(pending);
    if (catalyst && catalyst->is(Json::Kind::text)) {
        set_catalyst_text(catalyst->text("catalyst"));
    } else if (catalyst) {
        TokenIds ids;
        for (const Json& each : catalyst->items("catalyst")) {
            ids.push_back(static_cast<int32_t>(each.integer("catalyst")));
        }
        set_catalyst_ids(ids);
    }
}

}  // namespace lcc
