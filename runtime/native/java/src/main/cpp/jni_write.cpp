// Sessions: writing.
#include "jni_support.h"

using namespace lcc_jni;

extern "C" {

JNIEXPORT jboolean JNICALL Java_lcc_Native_generateStart(
    JNIEnv *env, jclass, jlong handle, jbyteArray prompt, jintArray ids, jobjectArray messages,
    jlongArray whole, jdoubleArray real, jobjectArray stop, jintArray ends, jbooleanArray flags) {
    return guarded(env, [&]() -> jboolean {
        lcc_session *session = session_of(handle)->session;
        jlong counts[3];
        jdouble numbers[4];
        env->GetLongArrayRegion(whole, 0, 3, counts);
        env->GetDoubleArrayRegion(real, 0, 4, numbers);
        const std::vector<bool> set = flags_of(env, flags);
        const std::vector<Bytes> stop_texts = texts_of(env, stop);
        std::vector<const char *> stops;
        for (const Bytes &text : stop_texts) {
            stops.push_back(text.data());
        }
        const Ids end_ids = ids_of(env, ends);

        lcc_generate_options how;
        lcc_generate_options_init(&how);
        how.max_new_tokens = counts[0];
        how.top_k = counts[1];
        how.seed = counts[2];
        how.temperature = numbers[0];
        how.top_p = numbers[1];
        how.min_p = numbers[2];
        how.repetition_penalty = numbers[3];
        how.stop = stops.data();
        how.stop_count = stops.size();
        how.ends = end_ids.data();
        how.ends_count = end_ids.values.size();
        how.ends_given = end_ids.given;
        how.no_recall = set[0];
        how.no_prefix = set[1];
        how.plain = set[2];

        lcc_status status = LCC_OK;
        if (messages != nullptr) {
            const std::vector<Bytes> texts = texts_of(env, messages);
            std::vector<lcc_message> list;
            for (std::size_t i = 0; i + 1 < texts.size(); i += 2) {
                list.push_back({texts[i].data(), texts[i + 1].data()});
            }
            status = lcc_chat_start(session, list.data(), list.size(), &how);
        } else if (ids != nullptr) {
            const Ids given = ids_of(env, ids);
            status = lcc_generate_start_ids(session, given.data(), given.values.size(), &how);
        } else {
            const Bytes text = bytes_of(env, prompt);
            status = lcc_generate_start(session, text.data(), text.size(), &how);
        }
        return passed_with_callbacks(env, status) && status != LCC_STOPPED;
    });
}

JNIEXPORT jbyteArray JNICALL Java_lcc_Native_generateNext(JNIEnv *env, jclass, jlong handle) {
    const char *piece = nullptr;
    std::size_t length = 0;
    const lcc_status status = lcc_generate_next(session_of(handle)->session, &piece, &length);
    if (!passed_with_callbacks(env, status) || status == LCC_DONE) {
        return nullptr;
    }
    return status == LCC_STOPPED ? to_java(env, "", 0) : to_java(env, piece, length);
}

JNIEXPORT jint JNICALL Java_lcc_Native_generateNextId(JNIEnv *env, jclass, jlong handle) {
    std::int32_t id = 0;
    const lcc_status status = lcc_generate_next_id(session_of(handle)->session, &id);
    if (!passed_with_callbacks(env, status) || status == LCC_DONE) {
        return -1;
    }
    return status == LCC_STOPPED ? -2 : id;
}

JNIEXPORT jfloatArray JNICALL Java_lcc_Native_nextLogits(JNIEnv *env, jclass, jlong handle) {
    return guarded(env, [&]() -> jfloatArray {
        lcc_session *session = session_of(handle)->session;
        std::size_t count = 0;
        if (!passed(env, lcc_next_logits(session, nullptr, 0, &count))) {
            return nullptr;
        }
        std::vector<float> logits(count);
        if (!passed(env, lcc_next_logits(session, logits.data(), logits.size(), nullptr))) {
            return nullptr;
        }
        jfloatArray found = env->NewFloatArray(static_cast<jsize>(count));
        if (found != nullptr) {
            env->SetFloatArrayRegion(found, 0, static_cast<jsize>(count), logits.data());
        }
        return found;
    });
}

}  // extern "C"
