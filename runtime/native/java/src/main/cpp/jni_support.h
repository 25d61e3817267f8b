// What all of the functions behind lcc.Native need: arrays to vectors, statuses to exceptions.
#pragma once

#include <jni.h>
#include <lcc.h>

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace lcc_jni {

// An array of Java, copied: calls take seconds, and the collector must not wait for them.
struct Bytes {
    bool given = false;
    std::string text;  // std::string, since some functions want a zero at the end
    const char *data() const { return given ? text.c_str() : nullptr; }
    std::size_t size() const { return text.size(); }
};

struct Ids {
    bool given = false;
    std::vector<std::int32_t> values;
    // Not null where the array is given and empty: null means that it is not given.
    const std::int32_t *data() const {
        static const std::int32_t none = 0;
        return !given ? nullptr : values.empty() ? &none : values.data();
    }
};

Bytes bytes_of(JNIEnv *env, jbyteArray array);
Ids ids_of(JNIEnv *env, jintArray array);
std::vector<Bytes> texts_of(JNIEnv *env, jobjectArray arrays);
std::vector<bool> flags_of(JNIEnv *env, jbooleanArray array);

jbyteArray to_java(JNIEnv *env, const char *text, std::size_t length);
jbyteArray to_java(JNIEnv *env, const char *text);  // null stays null
jobjectArray to_java(JNIEnv *env, const std::vector<const char *> &texts);
void fill(JNIEnv *env, jlongArray array, const std::vector<std::int64_t> &values);
void fill(JNIEnv *env, jdoubleArray array, const std::vector<double> &values);

// Makes lcc.LccException of the thread's error message pending.
void throw_status(JNIEnv *env, lcc_status status);

// True where the status is no error. Otherwise an exception is pending.
inline bool passed(JNIEnv *env, lcc_status status) {
    if (status > LCC_OK && status < LCC_DONE) {
        throw_status(env, status);
        return false;
    }
    return true;
}

// Runs `body`. Where memory ends, OutOfMemoryError is pending: nothing of C++ is thrown into Java.
template <typename Body>
auto guarded(JNIEnv *env, Body body) -> decltype(body()) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        if (jclass type = env->FindClass("java/lang/OutOfMemoryError")) {
            env->ThrowNew(type, "lcc: the system has no memory left for a copy of the argument");
        }
        return decltype(body())();
    }
}

// Classes and methods of Java that native code calls, looked up once in JNI_OnLoad.
struct Java {
    JavaVM *machine = nullptr;
    jclass natives = nullptr;
    jclass exception = nullptr;
    jmethodID make_exception = nullptr;
    jmethodID progress = nullptr;
    jmethodID cycle = nullptr;
    jmethodID log = nullptr;
};
extern Java java;

JNIEnv *env_of_thread();

// A reference that lives as long as this. Made, moved nowhere, and destroyed on threads of Java.
class Hook {
public:
    Hook(JNIEnv *env, jobject object) : held_(object ? env->NewGlobalRef(object) : nullptr) {}
    ~Hook() {
        if (held_ != nullptr) {
            env_of_thread()->DeleteGlobalRef(held_);
        }
    }
    Hook(const Hook &) = delete;
    Hook &operator=(const Hook &) = delete;
    jobject get() const { return held_; }

private:
    jobject held_;
};

// A session and the callbacks that outlive a call.
struct Session {
    lcc_session *session = nullptr;
    std::unique_ptr<Hook> on_cycle;
    std::unique_ptr<Hook> progress;  // of a feed that comes piece by piece
    bool feeding = false;
    std::int64_t tokens_before = 0;
};

inline Session *session_of(jlong handle) { return reinterpret_cast<Session *>(handle); }
inline lcc_model *model_of(jlong handle) { return reinterpret_cast<lcc_model *>(handle); }

// Notes what a callback threw, until the end of the call. True where it threw something.
bool note_exception(JNIEnv *env);
bool exception_noted();

// As passed(), for calls in which callbacks run: what one of them threw goes first.
bool passed_with_callbacks(JNIEnv *env, lcc_status status);

}  // namespace lcc_jni
