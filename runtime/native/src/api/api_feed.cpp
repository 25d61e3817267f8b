// The functions of lcc.h that read.

#include <algorithm>

#include "api/handles.h"

using namespace lcc;

namespace {

// The options of a feed; callbacks run on the thread of the call.
FeedOptions feed_of(lcc_session& handle, const lcc_feed_options* options) {
    const auto given = options_of(options, lcc_feed_options_init, "lcc_feed_options");
    FeedOptions how;
    how.how.protect = given.protect != 0;
    how.how.last = given.last != 0;
    how.prefix = given.no_prefix == 0;
    how.plain = given.plain != 0;
    if (given.catalyst != nullptr) {
        how.catalyst_text = std::string(text_of(given.catalyst, given.catalyst_length, "catalyst"));
    } else if (given.catalyst_ids != nullptr) {
        how.how.catalyst = TokenIds(given.catalyst_ids, given.catalyst_ids + given.catalyst_count);
    }
    if (given.progress != nullptr) {
        const lcc_progress_fn progress = given.progress;
        void* const user = given.user;
        how.how.progress = [&handle, progress, user](const Progress& at) {
            const lcc_progress told{sizeof told, at.tokens, at.fraction,
                                    at.used,     at.cycles, at.seconds};
            const InHook hook(handle);
            return progress(user, &told) != 0;
        };
    }
    return how;
}

TokenIds ids_of(const int32_t* ids, size_t count) {
    if (count > 0) {
        wanted(ids, "ids");
    }
    return TokenIds(ids, ids + count);
}

// Says how many tokens a feed has read, however it ends.
class Read {
public:
    Read(const Session& session, size_t* read) : session_(session), read_(read) {
        if (read_ != nullptr) {
            *read_ = 0;
        }
    }
    ~Read() {
        if (read_ != nullptr && begun) {
            *read_ = static_cast<size_t>(std::max<int64_t>(0, session_.fed()));
        }
    }
    bool begun = false;

private:
    const Session& session_;
    size_t* read_;
};

}  // namespace

extern "C" {

void lcc_feed_options_init(lcc_feed_options* options) {
    if (options != nullptr) {
        *options = lcc_feed_options{};
        options->size = sizeof *options;
        options->catalyst_length = LCC_NUL;
    }
}

lcc_status lcc_feed(lcc_session* handle, const char* text, size_t length,
                    const lcc_feed_options* options, size_t* read) {
    return call(handle, Kind::moves, [&](Session& session) {
        Read said(session, read);
        const std::string_view all = text_of(text, length, "text");
        const FeedOptions how = feed_of(*handle, options);
        session.model().text();
        said.begun = true;
        session.feed_text(all, how);
        return LCC_OK;
    });
}

lcc_status lcc_feed_ids(lcc_session* handle, const int32_t* ids, size_t count,
                        const lcc_feed_options* options, size_t* read) {
    return call(handle, Kind::moves, [&](Session& session) {
        Read said(session, read);
        const TokenIds all = ids_of(ids, count);
        session.model().check_ids(ids, count, "ids");
        said.begun = true;
        session.feed_ids(all, feed_of(*handle, options));
        return LCC_OK;
    });
}

lcc_status lcc_feed_begin(lcc_session* handle, const lcc_feed_options* options) {
    return call(handle, Kind::moves, [&](Session& session) {
        session.feed_begin(feed_of(*handle, options));
        return LCC_OK;
    });
}

lcc_status lcc_feed_write(lcc_session* handle, const char* text, size_t length) {
    return call(handle, Kind::feeds, [&](Session& session) {
        if (!session.is_feeding()) {
            throw config_error("no feed has begun; call lcc_feed_begin");
        }
        session.feed_write_text(text_of(text, length, "text"));
        return LCC_OK;
    });
}

lcc_status lcc_feed_write_ids(lcc_session* handle, const int32_t* ids, size_t count) {
    return call(handle, Kind::feeds, [&](Session& session) {
        if (!session.is_feeding()) {
            throw config_error("no feed has begun; call lcc_feed_begin");
        }
        session.feed_write_ids(ids_of(ids, count));
        return LCC_OK;
    });
}

lcc_status lcc_feed_end(lcc_session* handle, size_t* read) {
    return call(handle, Kind::feeds, [&](Session& session) {
        Read said(session, read);
        if (!session.is_feeding()) {
            throw config_error("no feed has begun; call lcc_feed_begin");
        }
        said.begun = true;
        session.feed_end();
        return LCC_OK;
    });
}

lcc_status lcc_nll(lcc_session* handle, const int32_t* ids, size_t count, float* nll) {
    return call(handle, Kind::moves, [&](Session& session) {
        wanted(nll, "nll");
        const std::vector<float> found = session.nll(ids_of(ids, count));
        std::copy(found.begin(), found.end(), nll);
        return LCC_OK;
    });
}

lcc_status lcc_set_catalyst(lcc_session* handle, const char* text, size_t length) {
    return call(handle, Kind::moves, [&](Session& session) {
        session.set_catalyst_text(text_of(text, length, "text"));
        return LCC_OK;
    });
}

lcc_status lcc_set_catalyst_ids(lcc_session* handle, const int32_t* ids, size_t count) {
    return call(handle, Kind::moves, [&](Session& session) {
        session.set_catalyst_ids(ids_of(ids, count));
        return LCC_OK;
    });
}

lcc_status lcc_distill(lcc_session* handle) {
    return call(handle, Kind::moves, [&](Session& session) {
        session.distill();
        return LCC_OK;
    });
}

}  // extern "C"
