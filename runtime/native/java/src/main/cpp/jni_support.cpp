#include "jni_support.h"

namespace lcc_jni {

Java java;

// Callbacks run on the thread of the call, and none runs after one that threw.
static thread_local jthrowable noted = nullptr;

Bytes bytes_of(JNIEnv *env, jbyteArray array) {
    Bytes found;
    if (array != nullptr) {
        found.given = true;
        found.text.resize(static_cast<std::size_t>(env->GetArrayLength(array)));
        env->GetByteArrayRegion(array, 0, static_cast<jsize>(found.text.size()),
                                reinterpret_cast<jbyte *>(&found.text[0]));
    }
    return found;
}

Ids ids_of(JNIEnv *env, jintArray array) {
    static_assert(sizeof(jint) == sizeof(std::int32_t), "ids are copied as they are");
    Ids found;
    if (array != nullptr) {
        found.given = true;
        found.values.resize(static_cast<std::size_t>(env->GetArrayLength(array)));
        env->GetIntArrayRegion(array, 0, static_cast<jsize>(found.values.size()),
                               reinterpret_cast<jint *>(found.values.data()));
    }
    return found;
}

std::vector<Bytes> texts_of(JNIEnv *env, jobjectArray arrays) {
    std::vector<Bytes> found;
    const jsize count = arrays == nullptr ? 0 : env->GetArrayLength(arrays);
    for (jsize i = 0; i < count; ++i) {
        auto array = static_cast<jbyteArray>(env->GetObjectArrayElement(arrays, i));
        found.push_back(bytes_of(env, array));
        env->DeleteLocalRef(array);
    }
    return found;
}

std::vector<bool> flags_of(JNIEnv *env, jbooleanArray array) {
    std::vector<jboolean> held(static_cast<std::size_t>(env->GetArrayLength(array)));
    env->GetBooleanArrayRegion(array, 0, static_cast<jsize>(held.size()), held.data());
    return std::vector<bool>(held.begin(), held.end());
}

jbyteArray to_java(JNIEnv *env, const char *text, std::size_t length) {
    jbyteArray array = env->NewByteArray(static_cast<jsize>(length));
    if (array != nullptr) {
        env->SetByteArrayRegion(array, 0, static_cast<jsize>(length),
                                reinterpret_cast<const jbyte *>(text));
    }
    return array;
}

jbyteArray to_java(JNIEnv *env, const char *text) {
    return text == nullptr ? nullptr : to_java(env, text, std::char_traits<char>::length(text));
}

jobjectArray to_java(JNIEnv *env, const std::vector<const char *> &texts) {
    const auto count = static_cast<jsize>(texts.size());
    jobjectArray found = env->NewObjectArray(count, env->FindClass("[B"), nullptr);
    for (jsize i = 0; found != nullptr && i < count; ++i) {
        jbyteArray text = to_java(env, texts[static_cast<std::size_t>(i)]);
        env->SetObjectArrayElement(found, i, text);
        env->DeleteLocalRef(text);
    }
    return found;
}

void fill(JNIEnv *env, jlongArray array, const std::vector<std::int64_t> &values) {
    const std::vector<jlong> numbers(values.begin(), values.end());
    env->SetLongArrayRegion(array, 0, static_cast<jsize>(numbers.size()), numbers.data());
}

void fill(JNIEnv *env, jdoubleArray array, const std::vector<double> &values) {
    env->SetDoubleArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
}

void throw_status(JNIEnv *env, lcc_status status) {
    jbyteArray message = to_java(env, lcc_error_message());
    if (message == nullptr) {
        return;  // OutOfMemoryError is pending
    }
    jobject error = env->NewObject(java.exception, java.make_exception,
                                   static_cast<jint>(status), message);
    if (error != nullptr) {
        env->Throw(static_cast<jthrowable>(error));
    }
}

bool note_exception(JNIEnv *env) {
    jthrowable error = env->ExceptionOccurred();
    if (error == nullptr) {
        return false;
    }
    env->ExceptionClear();
    if (noted == nullptr) {
        noted = static_cast<jthrowable>(env->NewGlobalRef(error));
    }
    env->DeleteLocalRef(error);
    return true;
}

bool exception_noted() { return noted != nullptr; }

bool passed_with_callbacks(JNIEnv *env, lcc_status status) {
    if (noted == nullptr) {
        return passed(env, status);
    }
    env->Throw(static_cast<jthrowable>(env->NewLocalRef(noted)));
    env->DeleteGlobalRef(noted);
    noted = nullptr;
    return false;
}

JNIEnv *env_of_thread() {
    void *env = nullptr;
    java.machine->GetEnv(&env, JNI_VERSION_1_6);
    return static_cast<JNIEnv *>(env);
}

}  // namespace lcc_jni

extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *machine, void *) {
    using lcc_jni::java;
    java.machine = machine;
    JNIEnv *env = lcc_jni::env_of_thread();
    jclass natives = env->FindClass("lcc/Native");
    jclass exception = natives ? env->FindClass("lcc/LccException") : nullptr;
    if (exception == nullptr) {
        return JNI_ERR;
    }
    java.natives = static_cast<jclass>(env->NewGlobalRef(natives));
    java.exception = static_cast<jclass>(env->NewGlobalRef(exception));
    java.make_exception = env->GetMethodID(exception, "<init>", "(I[B)V");
    java.progress =
        env->GetStaticMethodID(natives, "progress", "(Ljava/util/function/Predicate;JDJJD)Z");
    java.cycle = env->GetStaticMethodID(natives, "cycle", "(Ljava/util/function/Consumer;JJJD)V");
    java.log = env->GetStaticMethodID(natives, "log", "(Ljava/util/function/BiConsumer;I[B)V");
    return env->ExceptionCheck() ? JNI_ERR : JNI_VERSION_1_6;
}
