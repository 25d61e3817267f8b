// The functions of lcc.h that concern sessions, but for reading and writing.

#include <algorithm>
#include <cstdint>

#include "api/handles.h"
#include "core/peak_memory.h"
#include "core/resident.h"

using namespace lcc;

namespace {

std::optional<ArchiveOptions> archive_of(const char* path, const char* dtype, int64_t limit) {
    if (path == nullptr) {
        return std::nullopt;
    }
    ArchiveOptions options;
    options.path = path;
    options.dtype = dtype == nullptr ? options.dtype : dtype;
    options.limit = limit;
    if (options.dtype != "float16" && options.dtype != "float32" && options.dtype != "int8") {
        throw config_error("archive_dtype is \"" + options.dtype +
                           "\", wanted float16, float32 or int8");
    }
    if (limit < 0) {
        throw config_error("archive_limit is " + std::to_string(limit) + ", wanted 0 or more");
    }
    return options;
}

}  // namespace

extern "C" {

void lcc_session_options_init(lcc_session_options* options) {
    if (options != nullptr) {
        *options = lcc_session_options{sizeof *options, 0, 0, 0, -1, nullptr, nullptr, 0};
    }
}

lcc_status lcc_session_open(lcc_model* model, const lcc_session_options* options,
                            lcc_session** session) {
    return call([&] {
        wanted(session, "session");
        *session = nullptr;
        wanted(model, "model");
        const auto given = options_of(options, lcc_session_options_init, "lcc_session_options");
        SessionOptions how;
        how.sizes = {given.capacity, given.budget, given.chunk_size};
        if (given.seed < -1 || given.seed > INT32_MAX) {  // programs take a number of 32 bits
            throw config_error("seed is " + std::to_string(given.seed) + ", wanted 0 to " +
                               std::to_string(INT32_MAX));
        }
        if (given.seed >= 0) {
            how.seed = given.seed;
        }
        how.archive = archive_of(given.archive_path, given.archive_dtype, given.archive_limit);
        auto handle = std::make_unique<lcc_session>();
        handle->session = std::make_unique<Session>(model->model, how);
        *session = handle.release();
    });
}

void lcc_session_close(lcc_session* session) {
    delete session;
    trim();
}

void lcc_cancel(lcc_session* session) {
    if (session != nullptr) {
        session->session->reader().stop = true;
    }
}

lcc_status lcc_on_cycle(lcc_session* handle, lcc_cycle_fn hook, void* user) {
    return call(handle, Kind::moves, [&](Session& session) {
        if (hook == nullptr) {
            session.reader().on_cycle = nullptr;
            return LCC_OK;
        }
        session.reader().on_cycle = [handle, hook, user](const Cycle& cycle) {
            const lcc_cycle told{sizeof told, cycle.tokens, cycle.used_before, cycle.used_after,
                                 cycle.seconds};
            const InHook inside(*handle);
            hook(user, &told);
        };
        return LCC_OK;
    });
}

lcc_status lcc_rewind(lcc_session* handle, int64_t count) {
    return call(handle, Kind::moves, [&](Session& session) {
        session.rewind(count);
        return LCC_OK;
    });
}

lcc_status lcc_reset(lcc_session* handle) {
    return call(handle, Kind::moves, [&](Session& session) {
        session.reset();
        return LCC_OK;
    });
}

lcc_status lcc_save(lcc_session* handle, const char* path, const char* dtype) {
    return call(handle, Kind::moves, [&](Session& session) {
        wanted(path, "path");
        session.save(path, dtype == nullptr ? "" : dtype);
        return LCC_OK;
    });
}

lcc_status lcc_load(lcc_session* handle, const char* path) {
    return call(handle, Kind::moves, [&](Session& session) {
        wanted(path, "path");
        session.load(path);
        return LCC_OK;
    });
}

lcc_status lcc_archive_attach(lcc_session* handle, const char* path, const char* dtype,
                              int64_t limit) {
    return call(handle, Kind::moves, [&](Session& session) {
        wanted(path, "path");
        session.attach(*archive_of(path, dtype, limit));
        return LCC_OK;
    });
}

lcc_status lcc_archive_detach(lcc_session* handle) {
    return call(handle, Kind::moves, [&](Session& session) {
        session.detach();
        return LCC_OK;
    });
}

lcc_status lcc_stats(lcc_session* handle, lcc_session_stats* stats) {
    return call(handle, Kind::reads, [&](Session& session) {
        const Executor& executor = session.executor();
        const Clock& clock = session.reader().clock;
        Archive* archive = executor.archive();
        lcc_session_stats all{};
        all.load_seconds = clock.load_seconds;
        all.prefill_tokens = clock.prefill_tokens;
        all.prefill_seconds = clock.prefill_seconds;
        all.decode_tokens = clock.decode_tokens;
        all.decode_seconds = clock.decode_seconds;
        all.first_token_seconds = clock.first_token_seconds;
        all.cycles = clock.cycles;
        all.cycle_seconds = clock.cycle_seconds;
        all.recalls = clock.recalls;
        all.recall_seconds = clock.recall_seconds;
        all.recalled = clock.recalled;
        all.tokens = session.reader().tokens();
        all.used = executor.used();
        all.rewindable = session.reader().rewindable();
        all.capacity = executor.sizes().capacity;
        all.budget = executor.sizes().budget;
        all.chunk_size = executor.sizes().chunk_size;
        all.cache_bytes = executor.cache_bytes();
        all.held_bytes = executor.held_bytes();
        all.archive_rows = archive == nullptr ? -1 : executor.counters().at("archived");
        all.archive_bytes = archive == nullptr ? -1 : archive->file_bytes();
        handle->stopped = archive == nullptr ? "" : archive->stopped();
        all.archive_stopped = handle->stopped.empty() ? nullptr : handle->stopped.c_str();
        all.peak_rss_bytes = peak_rss_bytes();
        give(stats, all, "stats");
        return LCC_OK;
    });
}

lcc_status lcc_kept_tokens(lcc_session* handle, int32_t layer, int64_t* positions, size_t capacity,
                           size_t* heads, size_t* used) {
    return call(handle, Kind::reads, [&](Session& session) {
        wanted(heads, "heads");
        wanted(used, "used");
        const KeptTokens kept = session.executor().kept_tokens(layer);
        if (capacity > 0) {
            wanted(positions, "positions");
        }
        std::copy_n(kept.positions.begin(), std::min(capacity, kept.positions.size()), positions);
        *heads = kept.heads;
        *used = kept.used;
        return LCC_OK;
    });
}

}  // extern "C"
