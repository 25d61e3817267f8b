// A saved state: as it is, and with its digest made anew, as an attacker would.

#include "artifact/sha256.h"
#include "core/error.h"
#include "fake_session.h"

namespace lcc::fuzz {

namespace {

std::string mended(std::string data) {
    const std::string field = "\"sha256\":\"";
    const size_t found = data.find(field);
    const size_t place = found == std::string::npos ? data.size() : found + field.size();
    if (place + 64 > data.size()) {
        return data;
    }
    data.replace(place, 64, std::string(64, '0'));
    const std::string digest = Sha256::of(std::string_view(data).substr(8));
    return data.replace(place, 64, digest);
}

std::string load(const std::shared_ptr<Model>& model, const std::string& data) {
    const ScratchFile file("state", data);
    try {
        Session session(model, {});
        session.load(file.path());
        use(session);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

}  // namespace

std::string state(std::string_view data) {
    static const std::shared_ptr<Model> model = model_of(known_manifest());
    const std::string refused = load(model, std::string(data));
    return refused.empty() ? refused : load(model, mended(std::string(data)));
}

}  // namespace lcc::fuzz
