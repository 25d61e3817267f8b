// A session of a manifest alone, with an engine that computes nothing.
#pragma once

#include <memory>
#include <utility>

#include "fake_engine.h"
#include "session/session.h"
#include "targets.h"

namespace lcc::fuzz {

inline std::shared_ptr<Model> model_of(Manifest manifest) {
    auto model = std::make_shared<Model>();
    model->manifest = std::move(manifest);
    model->engine = std::make_unique<FakeEngine>(model->manifest);
    model->generation_config = Json::object();
    return model;
}

// What an app does with a session: several cycles, an answer, a state.
inline void use(Session& session) {
    const int64_t room = session.executor().usable();
    TokenIds ids;
    for (int64_t i = 0; i < 2 * room + 5; ++i) {
        ids.push_back(static_cast<int32_t>(i * 7 % session.model().manifest.vocab_size));
    }
    session.feed_ids(ids, {});
    GenerateOptions how;
    how.max_new_tokens = 4;
    how.ends = TokenIds();
    session.start_ids({0}, how);
    while (session.next_id()) {
    }
    session.rewind(std::min<int64_t>(2, session.reader().rewindable()));
    session.executor().kept_tokens(0);
    const ScratchFile state("saved", "");
    session.save(state.path(), "");
    session.load(state.path());
}

}  // namespace lcc::fuzz
