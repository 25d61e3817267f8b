// Sessions: made, ended, and what they hold.
#include "jni_support.h"

using namespace lcc_jni;

namespace {

void cycle_to_java(void *user, const lcc_cycle *cycle) {
    auto *session = static_cast<Session *>(user);
    if (exception_noted()) {
        return;
    }
    JNIEnv *env = env_of_thread();
    env->CallStaticVoidMethod(java.natives, java.cycle, session->on_cycle->get(),
                              static_cast<jlong>(cycle->tokens),
                              static_cast<jlong>(cycle->used_before),
                              static_cast<jlong>(cycle->used_after), cycle->seconds);
    if (note_exception(env)) {
        lcc_cancel(session->session);  // a hook of cycles has no other way to stop
    }
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_lcc_Native_sessionOpen(JNIEnv *env, jclass, jlong model,
                                                    jlongArray sizes, jbyteArray archive,
                                                    jbyteArray dtype, jlong limit) {
    return guarded(env, [&]() -> jlong {
        jlong asked[4];
        env->GetLongArrayRegion(sizes, 0, 4, asked);
        const Bytes path = bytes_of(env, archive);
        const Bytes archive_dtype = bytes_of(env, dtype);
        lcc_session_options options;
        lcc_session_options_init(&options);
        options.capacity = asked[0];
        options.budget = asked[1];
        options.chunk_size = asked[2];
        options.seed = asked[3];
        options.archive_path = path.data();
        options.archive_dtype = archive_dtype.data();
        options.archive_limit = limit;
        auto session = std::make_unique<Session>();
        if (!passed(env, lcc_session_open(model_of(model), &options, &session->session))) {
            return 0;
        }
        return reinterpret_cast<jlong>(session.release());
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_sessionClose(JNIEnv *, jclass, jlong handle) {
    const std::unique_ptr<Session> session(session_of(handle));
    lcc_session_close(session->session);
}

JNIEXPORT void JNICALL Java_lcc_Native_cancel(JNIEnv *, jclass, jlong handle) {
    lcc_cancel(session_of(handle)->session);
}

JNIEXPORT void JNICALL Java_lcc_Native_onCycle(JNIEnv *env, jclass, jlong handle, jobject hook) {
    guarded(env, [&] {
        Session *session = session_of(handle);
        auto next = std::make_unique<Hook>(env, hook);
        // Refused while a call is being served, which still uses the old one.
        const bool given = hook != nullptr;
        if (passed(env, lcc_on_cycle(session->session, given ? cycle_to_java : nullptr, session))) {
            session->on_cycle.swap(next);
        }
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_rewind(JNIEnv *env, jclass, jlong handle, jlong count) {
    passed(env, lcc_rewind(session_of(handle)->session, count));
}

JNIEXPORT void JNICALL Java_lcc_Native_reset(JNIEnv *env, jclass, jlong handle) {
    passed(env, lcc_reset(session_of(handle)->session));
}

JNIEXPORT void JNICALL Java_lcc_Native_save(JNIEnv *env, jclass, jlong handle, jbyteArray path,
                                            jbyteArray dtype) {
    guarded(env, [&] {
        const Bytes file = bytes_of(env, path);
        const Bytes type = bytes_of(env, dtype);
        passed(env, lcc_save(session_of(handle)->session, file.data(), type.data()));
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_load(JNIEnv *env, jclass, jlong handle, jbyteArray path) {
    guarded(env, [&] {
        const Bytes file = bytes_of(env, path);
        passed(env, lcc_load(session_of(handle)->session, file.data()));
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_archiveAttach(JNIEnv *env, jclass, jlong handle,
                                                     jbyteArray path, jbyteArray dtype,
                                                     jlong limit) {
    guarded(env, [&] {
        const Bytes file = bytes_of(env, path);
        const Bytes type = bytes_of(env, dtype);
        lcc_session *session = session_of(handle)->session;
        passed(env, lcc_archive_attach(session, file.data(), type.data(), limit));
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_archiveDetach(JNIEnv *env, jclass, jlong handle) {
    passed(env, lcc_archive_detach(session_of(handle)->session));
}

JNIEXPORT jbyteArray JNICALL Java_lcc_Native_stats(JNIEnv *env, jclass, jlong handle,
                                                   jlongArray whole, jdoubleArray real) {
    return guarded(env, [&]() -> jbyteArray {
        lcc_session_stats now;
        now.size = sizeof now;
        if (!passed(env, lcc_stats(session_of(handle)->session, &now))) {
            return nullptr;
        }
        fill(env, real,
             {now.load_seconds, now.prefill_seconds, now.decode_seconds, now.first_token_seconds,
              now.cycle_seconds, now.recall_seconds});
        fill(env, whole,
             {now.prefill_tokens, now.decode_tokens, now.cycles, now.recalls, now.recalled,
              now.tokens, now.used, now.rewindable, now.capacity, now.budget, now.chunk_size,
              now.cache_bytes, now.held_bytes, now.archive_rows, now.archive_bytes,
              now.peak_rss_bytes});
        return to_java(env, now.archive_stopped);
    });
}

JNIEXPORT jlongArray JNICALL Java_lcc_Native_keptTokens(JNIEnv *env, jclass, jlong handle,
                                                        jint layer, jlongArray rows) {
    return guarded(env, [&]() -> jlongArray {
        lcc_session *session = session_of(handle)->session;
        std::size_t heads = 0;
        std::size_t used = 0;
        if (!passed(env, lcc_kept_tokens(session, layer, nullptr, 0, &heads, &used))) {
            return nullptr;
        }
        std::vector<std::int64_t> positions(heads * used);
        if (!passed(env, lcc_kept_tokens(session, layer, positions.data(), positions.size(),
                                         &heads, &used))) {
            return nullptr;
        }
        positions.resize(heads * used);  // fewer, if another thread moved the session meanwhile
        fill(env, rows, {static_cast<std::int64_t>(heads)});
        jlongArray found = env->NewLongArray(static_cast<jsize>(positions.size()));
        if (found != nullptr) {
            fill(env, found, positions);
        }
        return found;
    });
}

}  // extern "C"
