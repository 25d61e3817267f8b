// Sessions: reading.
#include "jni_support.h"

using namespace lcc_jni;

namespace {

// `user`: the listener, a reference that lives as long as the feed.
std::int32_t progress_to_java(void *user, const lcc_progress *now) {
    if (exception_noted()) {
        return 1;
    }
    JNIEnv *env = env_of_thread();
    const jboolean goes_on = env->CallStaticBooleanMethod(
        java.natives, java.progress, static_cast<jobject>(user), static_cast<jlong>(now->tokens),
        now->fraction, static_cast<jlong>(now->used), static_cast<jlong>(now->cycles),
        now->seconds);
    return note_exception(env) || !goes_on;
}

// The options of a feed, and what they point to.
struct Feed {
    lcc_feed_options options;
    Bytes catalyst;
    Ids catalyst_ids;

    Feed(JNIEnv *env, jbooleanArray flags, jbyteArray text, jintArray ids, jobject progress)
        : catalyst(bytes_of(env, text)), catalyst_ids(ids_of(env, ids)) {
        lcc_feed_options_init(&options);
        const std::vector<bool> set = flags_of(env, flags);
        options.protect = set[0];
        options.last = set[1];
        options.no_prefix = set[2];
        options.plain = set[3];
        options.catalyst = catalyst.data();
        options.catalyst_length = catalyst.size();
        options.catalyst_ids = catalyst_ids.data();
        options.catalyst_count = catalyst_ids.values.size();
        options.progress = progress == nullptr ? nullptr : progress_to_java;
        options.user = progress;
    }
};

jlong read_of(lcc_status status, std::size_t read) {
    const auto count = static_cast<jlong>(read);
    return status == LCC_STOPPED ? -1 - count : count;
}

std::int64_t tokens_of(Session *session) {
    lcc_session_stats stats;
    stats.size = sizeof stats;
    return lcc_stats(session->session, &stats) == LCC_OK ? stats.tokens : 0;
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_lcc_Native_feed(JNIEnv *env, jclass, jlong handle, jbyteArray text,
                                             jintArray ids, jbooleanArray flags,
                                             jbyteArray catalyst, jintArray catalyst_ids,
                                             jobject progress) {
    return guarded(env, [&]() -> jlong {
        lcc_session *session = session_of(handle)->session;
        const Feed how(env, flags, catalyst, catalyst_ids, progress);
        std::size_t read = 0;
        lcc_status status = LCC_OK;
        if (text != nullptr) {
            const Bytes bytes = bytes_of(env, text);
            status = lcc_feed(session, bytes.data(), bytes.size(), &how.options, &read);
        } else {
            const Ids given = ids_of(env, ids);
            status = lcc_feed_ids(session, given.data(), given.values.size(), &how.options, &read);
        }
        passed_with_callbacks(env, status);
        return read_of(status, read);
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_feedBegin(JNIEnv *env, jclass, jlong handle,
                                                 jbooleanArray flags, jbyteArray catalyst,
                                                 jintArray catalyst_ids, jobject progress) {
    guarded(env, [&] {
        Session *session = session_of(handle);
        auto hook = std::make_unique<Hook>(env, progress);
        const Feed how(env, flags, catalyst, catalyst_ids, hook->get());
        const std::int64_t before = tokens_of(session);
        if (passed_with_callbacks(env, lcc_feed_begin(session->session, &how.options))) {
            session->progress.swap(hook);
            session->tokens_before = before;
            session->feeding = true;
        }
    });
}

JNIEXPORT jboolean JNICALL Java_lcc_Native_feedWrite(JNIEnv *env, jclass, jlong handle,
                                                     jbyteArray block, jint count) {
    return guarded(env, [&]() -> jboolean {
        Session *session = session_of(handle);
        std::string bytes(static_cast<std::size_t>(count), '\0');
        env->GetByteArrayRegion(block, 0, count, reinterpret_cast<jbyte *>(&bytes[0]));
        const lcc_status status = lcc_feed_write(session->session, bytes.data(), bytes.size());
        session->feeding = status == LCC_OK;
        return passed_with_callbacks(env, status) && status == LCC_OK;
    });
}

JNIEXPORT jboolean JNICALL Java_lcc_Native_feedWriteIds(JNIEnv *env, jclass, jlong handle,
                                                        jintArray ids) {
    return guarded(env, [&]() -> jboolean {
        Session *session = session_of(handle);
        const Ids given = ids_of(env, ids);
        const lcc_status status =
            lcc_feed_write_ids(session->session, given.data(), given.values.size());
        session->feeding = status == LCC_OK;
        return passed_with_callbacks(env, status) && status == LCC_OK;
    });
}

JNIEXPORT jlong JNICALL Java_lcc_Native_feedEnd(JNIEnv *env, jclass, jlong handle) {
    Session *session = session_of(handle);
    if (!session->feeding) {  // a write was stopped: the feed is over
        return read_of(LCC_STOPPED,
                       static_cast<std::size_t>(tokens_of(session) - session->tokens_before));
    }
    session->feeding = false;
    std::size_t read = 0;
    const lcc_status status = lcc_feed_end(session->session, &read);
    passed_with_callbacks(env, status);
    return read_of(status, read);
}

JNIEXPORT jfloatArray JNICALL Java_lcc_Native_nll(JNIEnv *env, jclass, jlong handle,
                                                  jintArray ids) {
    return guarded(env, [&]() -> jfloatArray {
        const Ids given = ids_of(env, ids);
        std::vector<float> nll(given.values.size() + 1);
        if (!passed_with_callbacks(env, lcc_nll(session_of(handle)->session, given.data(),
                                                given.values.size(), nll.data()))) {
            return nullptr;
        }
        const auto count = static_cast<jsize>(given.values.size());
        jfloatArray found = env->NewFloatArray(count);
        if (found != nullptr) {
            env->SetFloatArrayRegion(found, 0, count, nll.data());
        }
        return found;
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_setCatalyst(JNIEnv *env, jclass, jlong handle,
                                                   jbyteArray text, jintArray ids) {
    guarded(env, [&] {
        lcc_session *session = session_of(handle)->session;
        if (text != nullptr) {
            const Bytes bytes = bytes_of(env, text);
            passed(env, lcc_set_catalyst(session, bytes.data(), bytes.size()));
        } else {
            const Ids given = ids_of(env, ids);
            passed(env, lcc_set_catalyst_ids(session, given.data(), given.values.size()));
        }
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_distill(JNIEnv *env, jclass, jlong handle) {
    passed_with_callbacks(env, lcc_distill(session_of(handle)->session));
}

}  // extern "C"
