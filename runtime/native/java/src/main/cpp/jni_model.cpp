// The library and its models.
#include <mutex>

#include "jni_support.h"

using namespace lcc_jni;

namespace {

#if defined(__ANDROID__)
using AttachedEnv = JNIEnv **;
#else
using AttachedEnv = void **;
#endif

std::mutex log_mutex;
jobject log_hook = nullptr;

// Any thread, also one that Java does not know: it is made known during the call.
void log_to_java(void *, std::int32_t level, const char *message) {
    JNIEnv *env = env_of_thread();
    const bool foreign = env == nullptr;
    if (foreign && java.machine->AttachCurrentThreadAsDaemon(
                       reinterpret_cast<AttachedEnv>(&env), nullptr) != JNI_OK) {
        return;
    }
    jthrowable pending = env->ExceptionOccurred();
    env->ExceptionClear();
    jobject hook = nullptr;
    {
        std::lock_guard<std::mutex> lock(log_mutex);
        hook = log_hook == nullptr ? nullptr : env->NewLocalRef(log_hook);
    }
    jbyteArray text = hook == nullptr ? nullptr : to_java(env, message);
    if (text != nullptr) {
        env->CallStaticVoidMethod(java.natives, java.log, hook, static_cast<jint>(level), text);
    }
    env->ExceptionClear();  // a log must not change what a call does
    env->DeleteLocalRef(text);
    env->DeleteLocalRef(hook);
    if (pending != nullptr) {
        env->Throw(pending);
    }
    if (foreign) {
        java.machine->DetachCurrentThread();
    }
}

}  // namespace

extern "C" {

JNIEXPORT jbyteArray JNICALL Java_lcc_Native_version(JNIEnv *env, jclass) {
    return to_java(env, lcc_version());
}

JNIEXPORT jint JNICALL Java_lcc_Native_formatVersion(JNIEnv *, jclass) {
    return lcc_format_version();
}

JNIEXPORT jbyteArray JNICALL Java_lcc_Native_statusName(JNIEnv *env, jclass, jint status) {
    return to_java(env, lcc_status_name(status));
}

JNIEXPORT void JNICALL Java_lcc_Native_setLog(JNIEnv *env, jclass, jobject hook, jint level) {
    jobject next = hook == nullptr ? nullptr : env->NewGlobalRef(hook);
    lcc_set_log(next == nullptr ? nullptr : log_to_java, nullptr, level);
    std::lock_guard<std::mutex> lock(log_mutex);
    if (log_hook != nullptr) {
        env->DeleteGlobalRef(log_hook);
    }
    log_hook = next;
}

JNIEXPORT jlong JNICALL Java_lcc_Native_modelOpen(JNIEnv *env, jclass, jbyteArray path,
                                                  jbyteArray engine, jbyteArray target,
                                                  jint threads, jboolean mapped, jboolean sizes,
                                                  jboolean allow_native) {
    return guarded(env, [&]() -> jlong {
        const Bytes folder = bytes_of(env, path);
        const Bytes library = bytes_of(env, engine);
        const Bytes name = bytes_of(env, target);
        lcc_model_options options;
        lcc_model_options_init(&options);
        options.engine_library = library.data();
        options.target = name.data();
        options.threads = threads;
        options.mapped = mapped;
        options.verify_sizes_only = sizes;
        options.allow_native = allow_native;
        lcc_model *model = nullptr;
        passed(env, lcc_model_open(folder.data(), &options, &model));
        return reinterpret_cast<jlong>(model);
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_modelClose(JNIEnv *, jclass, jlong model) {
    lcc_model_close(model_of(model));
}

JNIEXPORT jobjectArray JNICALL Java_lcc_Native_modelInfo(JNIEnv *env, jclass, jlong model,
                                                         jlongArray counts, jdoubleArray seconds) {
    return guarded(env, [&]() -> jobjectArray {
        lcc_model_info info;
        info.size = sizeof info;
        if (!passed(env, lcc_model_get_info(model_of(model), &info))) {
            return nullptr;
        }
        fill(env, counts,
             {info.vocab_size, info.layers, info.capacity, info.budget, info.chunk_size,
              info.knows_text, info.knows_chat, info.reads_catalyst, info.has_archive});
        fill(env, seconds, {info.load_seconds});
        return to_java(env, {info.name, info.architecture, info.target, info.policy,
                             info.precision, info.fingerprint});
    });
}

JNIEXPORT jintArray JNICALL Java_lcc_Native_encode(JNIEnv *env, jclass, jlong model,
                                                   jbyteArray text, jboolean plain) {
    return guarded(env, [&]() -> jintArray {
        const Bytes bytes = bytes_of(env, text);
        // No token is shorter than a byte, but for those that a normalizer adds: ask again then.
        std::vector<std::int32_t> ids(bytes.size() + 1);
        std::size_t count = 0;
        for (std::size_t room = 0; room != ids.size();) {
            room = ids.size();
            if (!passed(env, lcc_encode(model_of(model), bytes.data(), bytes.size(), plain,
                                        ids.data(), room, &count))) {
                return nullptr;
            }
            if (count > room) {
                ids.resize(count);
            }
        }
        jintArray found = env->NewIntArray(static_cast<jsize>(count));
        if (found != nullptr) {
            env->SetIntArrayRegion(found, 0, static_cast<jsize>(count),
                                   reinterpret_cast<const jint *>(ids.data()));
        }
        return found;
    });
}

JNIEXPORT jbyteArray JNICALL Java_lcc_Native_decode(JNIEnv *env, jclass, jlong model,
                                                    jintArray ids) {
    return guarded(env, [&]() -> jbyteArray {
        const Ids given = ids_of(env, ids);
        std::string text(8 * given.values.size() + 1, '\0');
        std::size_t length = 0;
        for (std::size_t room = 0; room != text.size();) {
            room = text.size();
            if (!passed(env, lcc_decode(model_of(model), given.data(), given.values.size(),
                                        &text[0], room, &length))) {
                return nullptr;
            }
            if (length > room) {
                text.resize(length);
            }
        }
        return to_java(env, text.data(), length);
    });
}

JNIEXPORT jbyteArray JNICALL Java_lcc_Native_mark(JNIEnv *env, jclass, jlong model,
                                                  jbyteArray text) {
    return guarded(env, [&]() -> jbyteArray {
        const Bytes bytes = bytes_of(env, text);
        std::string marked(bytes.size() + 1, '\0');
        std::size_t length = 0;
        for (std::size_t room = 0; room != marked.size();) {
            room = marked.size();
            if (!passed(env, lcc_mark(model_of(model), bytes.data(), bytes.size(), &marked[0], room,
                                      &length))) {
                return nullptr;
            }
            if (length > room) {
                marked.resize(length);
            }
        }
        return to_java(env, marked.data(), length);
    });
}

JNIEXPORT jobjectArray JNICALL Java_lcc_Native_userTurn(JNIEnv *env, jclass, jlong model) {
    return guarded(env, [&]() -> jobjectArray {
        const char *before = nullptr;
        const char *after = nullptr;
        if (!passed(env, lcc_user_turn(model_of(model), &before, &after))) {
            return nullptr;
        }
        return to_java(env, {before, after});
    });
}

JNIEXPORT void JNICALL Java_lcc_Native_checkGolden(JNIEnv *env, jclass, jlong model) {
    passed(env, lcc_check_golden(model_of(model)));
}

}  // extern "C"
