/*
** lcc: reads text of any length in memory fixed at compile time. The C interface of its runtime.
**
**     #include <lcc.h>
**
**     static int32_t show(void *user, const char *piece, size_t length) {
**         (void)user;
**         fwrite(piece, 1, length, stdout);
**         return 0;
**     }
**
**     lcc_model *model = NULL;
**     lcc_session *session = NULL;
**     lcc_model_options how;
**     lcc_model_options_init(&how);
**     how.engine_library = "/path/to/libonnxruntime.so";
**     if (lcc_model_open("book.lcc", &how, &model) ||
**         lcc_session_open(model, NULL, &session) ||
**         lcc_feed(session, text, length, NULL, NULL) ||
**         lcc_generate(session, question, LCC_NUL, NULL, show, NULL)) {
**         fprintf(stderr, "%s\n", lcc_error_message());
**     }
**     lcc_session_close(session);
**     lcc_model_close(model);
**
** A model is an artifact that was opened: its programs and weights. A session is one text, read and
** continued, in a cache of fixed size. Names mean here what they mean in Python's `lcc.runtime`.
**
** RESULTS. Every function that can fail returns an lcc_status. Zero is success, 1 to 99 are errors,
** 100 and above say that a call ended in another way (LCC_DONE, LCC_STOPPED). A message for the user
** is in lcc_error_message(). No C++ exception leaves the library, and it never ends the process.
**
** MEMORY. What the caller gives (paths, texts, ids, option structs and what they point to) is copied
** where it is needed longer than the call. What the library gives as `const char *` belongs to the
** model or session that it came from; each function says how long it is valid. Nothing that the
** library gives is freed by the caller, but for lcc_model and lcc_session by their close functions.
**
** THREADS. A model may be used from any number of threads at once. A session serves one call at a
** time: a second call on it, from another thread or from a callback, returns LCC_ERROR_BUSY and
** changes nothing; lcc_cancel may be called at any time. Callbacks run on the thread of the call.
**
** GROWTH. Option and result structs begin with `size`, which the init functions set to the size that
** the caller was compiled with. Later versions append fields; a library takes the defaults for
** fields that a caller does not have, and refuses a struct that is larger than it knows. Numbers of
** enumerations are only appended.
**
** TEXT is UTF-8, with its length in bytes, or LCC_NUL where it ends with a zero byte. Bytes that are
** no UTF-8 are read as U+FFFD.
*/
#ifndef LCC_H
#define LCC_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(LCC_BUILD)
#define LCC_API __declspec(dllexport)
#else
#define LCC_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define LCC_API __attribute__((visibility("default")))
#else
#define LCC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The length of a text that ends with a zero byte. */
#define LCC_NUL ((size_t)-1)

/* ---------------------------------------------------------------------------------------------
** Versions
*/

/* The version of this library, such as "0.2.0". Static; any thread. */
LCC_API const char *lcc_version(void);

/* The format version of the artifacts that it reads (`version` in manifest.json). Any thread. */
LCC_API int32_t lcc_format_version(void);

/* ---------------------------------------------------------------------------------------------
** Errors
*/

typedef int32_t lcc_status;

enum {
    LCC_OK = 0,
    LCC_ERROR_CONFIG = 1,   /* an argument or option that cannot be */
    LCC_ERROR_TARGET = 2,   /* the engine is missing, too old, or cannot run the programs here */
    LCC_ERROR_ARTIFACT = 3, /* an artifact or state file is missing, damaged, newer, or another's */
    LCC_ERROR_ARCHIVE = 4,  /* an archive is damaged, in use, or of another artifact */
    LCC_ERROR_CACHE = 5,    /* the cache cannot hold what was asked of it */
    LCC_ERROR_MEMORY = 6,   /* the system has no memory left */
    LCC_ERROR_BUSY = 7,     /* the session is serving another call */
    LCC_ERROR_UNSUPPORTED = 8, /* this build of the library, or this artifact, cannot do it */
    LCC_ERROR_GOLDEN = 9,   /* lcc_check_golden: a number differs */
    LCC_ERROR_INTERNAL = 10, /* a mistake in lcc: please report it */
    LCC_ERROR_TRUST = 11,   /* the artifact is machine code, and allow_native is not set */
    LCC_DONE = 100,         /* nothing more comes: the text has ended */
    LCC_STOPPED = 101       /* lcc_cancel or a callback stopped the call; the session goes on */
};

/*
** What went wrong in the last call of this thread that returned an error, in one line: what, where,
** what was found, what was wanted, what to do. "" if none did. Valid until the next call of this
** thread into the library. Calls that succeed leave it as it is.
*/
LCC_API const char *lcc_error_message(void);

/*
** The same for the last failed call on one session, whichever thread made it: for callers that wait
** for a call on one thread and read its result on another. Valid until the next call on the session.
** NULL gives "".
*/
typedef struct lcc_session lcc_session;
LCC_API const char *lcc_session_error_message(const lcc_session *session);

/* The name of a status, such as "LCC_ERROR_CACHE". Static; any thread. */
LCC_API const char *lcc_status_name(lcc_status status);

/* Levels of messages. */
enum { LCC_LOG_DEBUG = 0, LCC_LOG_INFO = 1, LCC_LOG_WARNING = 2, LCC_LOG_ERROR = 3 };

/* Gets one line without a newline; it is valid during the call. It may be called from any thread. */
typedef void (*lcc_log_fn)(void *user, int32_t level, const char *message);

/*
** Where messages of this level and above go. NULL, which is the default: nowhere. One for the whole
** process; `user` must live until another one is set. Any thread.
*/
LCC_API void lcc_set_log(lcc_log_fn log, void *user, int32_t level);

/* ---------------------------------------------------------------------------------------------
** Models
*/

typedef struct lcc_model lcc_model;

/* How a model is opened. Set by lcc_model_options_init, then change what you want. */
typedef struct lcc_model_options {
    size_t size;
    /*
    ** The engine's shared library. For targets of ONNX Runtime: libonnxruntime, 1.22 or newer. NULL
    ** = what the environment variable LCC_ONNXRUNTIME names, else the system's own search for
    ** libonnxruntime. For targets of TVM: the folder of libtvm_runtime and libtvm_ffi, one of them, or
    ** the folder of Python's packages with apache-tvm 0.27; NULL = LCC_TVM, else the system's search.
    ** It stays loaded until the process ends.
    */
    const char *engine_library;
    /* Which of the targets that the artifact was compiled for; NULL = the first that runs here. */
    const char *target;
    /* Threads of the engine; 0 = as many as there are cores. */
    int32_t threads;
    /*
    ** Non-zero = leave the weights in their file and read them as they are used, so that the system
    ** may drop them: for a model larger than the memory. A step takes longer.
    */
    int32_t mapped;
    /*
    ** Non-zero = compare the sizes of files only: for a package that is signed. ONNX programs are
    ** compared by their sha256 all the same.
    */
    int32_t verify_sizes_only;
    /*
    ** Non-zero = machine code of the artifact may run in this process, with all that it may do: what
    ** targets of TVM are made of. Set it only where you trust whoever made the artifact. This library
    ** checks no signature: `minisign -V` of manifest.json does.
    */
    int32_t allow_native;
} lcc_model_options;

/* Defaults: NULL, NULL, 0, 0, 0, 0. */
LCC_API void lcc_model_options_init(lcc_model_options *options);

/*
** Opens an artifact: reads and verifies it, loads its weights and all of its programs.
**
** `path` is the folder. `options` may be NULL. On success *model is the model, to be closed by
** lcc_model_close; on an error it is NULL. Files are only read, and only those that the manifest
** lists. Any thread.
**
** LCC_ERROR_ARTIFACT: the folder is missing, damaged, newer than this library, or has a field that
** it does not know. LCC_ERROR_TARGET: the engine cannot be loaded, is too old (the message names
** what it lacks), or none of the targets runs here. LCC_ERROR_TRUST: all that could run here is
** machine code, and it is not allowed. LCC_ERROR_CONFIG: an option that cannot be.
*/
LCC_API lcc_status lcc_model_open(const char *path, const lcc_model_options *options,
                                  lcc_model **model);

/*
** Closes a model. Its sessions may be closed later: they keep what they need of it. NULL is allowed.
** No other call may be using the handle.
*/
LCC_API void lcc_model_close(lcc_model *model);

/* What is known of a model. Texts are valid until the model is closed. */
typedef struct lcc_model_info {
    size_t size;
    const char *name;
    const char *architecture;
    const char *target;      /* that runs, such as "onnxruntime:cpu" */
    const char *policy;      /* what cycles keep, such as "consensus" */
    const char *precision;   /* of the weights: fp32, int8, int4 or given */
    const char *fingerprint; /* 64 hex digits: the same = the same artifact, file by file */
    int32_t vocab_size;      /* ids are 0 .. vocab_size-1 */
    int32_t layers;          /* that attend */
    int64_t capacity;        /* slots per KV head, as compiled */
    int64_t budget;          /* entries that a cycle keeps, as compiled */
    int64_t chunk_size;      /* most tokens of one step, as compiled */
    int32_t knows_text;      /* 0: it was compiled without tokenizer tables; give ids */
    int32_t knows_chat;      /* 0: its template is not regular, or it has none: no lcc_chat_start */
    int32_t reads_catalyst;  /* 0: cycles run no prompt; lcc_set_catalyst is an error */
    int32_t has_archive;     /* 0: evicted entries cannot be kept on disk */
    double load_seconds;     /* that opening took */
} lcc_model_info;

/* Set info->size first: `info.size = sizeof info`. Any thread. */
LCC_API lcc_status lcc_model_get_info(const lcc_model *model, lcc_model_info *info);

/*
** The token ids of a text, without the special tokens that begin one.
**
** At most `capacity` ids are written to `ids`, and *count is how many there are: if it is larger,
** call again with more room. `ids` may be NULL where capacity is 0. Any thread.
** `plain` non-zero = control tokens in the text, such as <|im_end|>, are read as plain text.
**
** LCC_ERROR_UNSUPPORTED: the artifact has no tokenizer tables.
*/
LCC_API lcc_status lcc_encode(const lcc_model *model, const char *text, size_t length,
                              int32_t plain, int32_t *ids, size_t capacity, size_t *count);

/*
** The text of ids, without control tokens: bytes that are no UTF-8 become U+FFFD. At most `capacity`
** bytes are written, no zero behind them; *length is how many there are. Any thread.
**
** LCC_ERROR_UNSUPPORTED: no tokenizer tables. LCC_ERROR_CONFIG: an id that is none.
*/
LCC_API lcc_status lcc_decode(const lcc_model *model, const int32_t *ids, size_t count,
                              char *text, size_t capacity, size_t *length);

/*
** The text of others with its control tokens between marks (U+F8F0, U+F8F1), so that they are read as
** plain text within a text of one's own: such as a user's question between the pieces of
** lcc_user_turn, read by lcc_generate. At most `capacity` bytes are written, no zero behind them;
** *count is how many there are. Any thread.
**
** LCC_ERROR_UNSUPPORTED: no tokenizer tables.
*/
LCC_API lcc_status lcc_mark(const lcc_model *model, const char *text, size_t length, char *marked,
                            size_t capacity, size_t *count);

/*
** Reads what golden.json says, in a session of its own, and compares counters, kept entries and
** logits with it. LCC_ERROR_GOLDEN: the message names the first number that differs. Any thread.
*/
LCC_API lcc_status lcc_check_golden(const lcc_model *model);

/* ---------------------------------------------------------------------------------------------
** Tokenizers
**
** The tables of an artifact by themselves, without its programs: for a runtime of one's own. Python's
** reads text through them. A model has its own: see lcc_encode.
*/

typedef struct lcc_tokenizer lcc_tokenizer;
typedef struct lcc_encoder lcc_encoder;

/* How tokens that were added to the vocabulary are read where a text has them. */
enum {
    LCC_READ_TOKENS = 0, /* as tokens */
    LCC_READ_PLAIN = 1,  /* control tokens as the letters they are written with, others as tokens */
    LCC_READ_MARKED = 2  /* as tokens, but what stands between U+F8F0 and U+F8F1 as letters */
};

/*
** Opens `text.bin` of an artifact, which is mapped and must stay as it is. On success *tokenizer is
** to be closed by lcc_tokenizer_close; on an error it is NULL. Any thread.
**
** LCC_ERROR_ARTIFACT: it cannot be read, is damaged, or newer than this library.
*/
LCC_API lcc_status lcc_tokenizer_open(const char *path, lcc_tokenizer **tokenizer);

/* Closes it. Encoders may be closed later. NULL is allowed. No other call may be using the handle. */
LCC_API void lcc_tokenizer_close(lcc_tokenizer *tokenizer);

/*
** The added token of a number from 0 on: its id, its text (valid until the tokenizer is closed, no
** zero behind it), and non-zero where it is never shown. LCC_DONE: there are no more. Any thread.
*/
LCC_API lcc_status lcc_tokenizer_added(const lcc_tokenizer *tokenizer, size_t number, int32_t *id,
                                       const char **text, size_t *length, int32_t *special);

/*
** As lcc_decode; ids that are none are left out. `special` non-zero = control tokens are shown.
*/
LCC_API lcc_status lcc_tokenizer_decode(const lcc_tokenizer *tokenizer, const int32_t *ids,
                                        size_t count, int32_t special, char *text, size_t capacity,
                                        size_t *length);

/*
** A text on its way to ids, in parts of any size that may end inside a character: together they give
** the ids of the whole, and no more of the text is kept than is not decided yet. `reading` is one of
** LCC_READ_*. For one thread at a time; to be closed by lcc_encoder_close, which is also the only call
** left after one of its calls has failed.
*/
LCC_API lcc_status lcc_encoder_open(const lcc_tokenizer *tokenizer, int32_t reading,
                                    lcc_encoder **encoder);

/*
** Takes a part of the text. *ids are the *count ids that are certain now, without the special tokens
** that begin a text; valid until the next call on this encoder.
*/
LCC_API lcc_status lcc_encoder_feed(lcc_encoder *encoder, const char *text, size_t length,
                                    const int32_t **ids, size_t *count);

/* The ids of the rest. What is fed then is another text. */
LCC_API lcc_status lcc_encoder_finish(lcc_encoder *encoder, const int32_t **ids, size_t *count);

/* NULL is allowed. */
LCC_API void lcc_encoder_close(lcc_encoder *encoder);

/* ---------------------------------------------------------------------------------------------
** Sessions
*/

/* How a session is made. Set by lcc_session_options_init. */
typedef struct lcc_session_options {
    size_t size;
    int64_t capacity;   /* slots per KV head, fewer than compiled; 0 = as compiled */
    int64_t budget;     /* entries that a cycle keeps, likewise */
    int64_t chunk_size; /* tokens of one step, likewise */
    int64_t seed;       /* of the numbers that policy "random" draws, below 2^31; -1 = as compiled */
    /*
    ** A file that takes what cycles evict, a row a token; a prompt brings back what it asks for.
    ** NULL = what is evicted is gone. It is made where it is not there, and locked while it is open.
    */
    const char *archive_path;
    const char *archive_dtype; /* of keys and values in a new file: float16 (default), float32, int8 */
    int64_t archive_limit;     /* most bytes of the file, beyond which the oldest rows go; 0 = any */
} lcc_session_options;

/* Defaults: 0, 0, 0, -1, NULL, NULL, 0. */
LCC_API void lcc_session_options_init(lcc_session_options *options);

/*
** A new session: its buffers are allocated now, once. `options` may be NULL. Any thread. The session
** keeps the model alive.
**
** LCC_ERROR_CACHE: a size above the compiled one, or below it where programs have it fixed.
** LCC_ERROR_CONFIG: sizes that leave a cycle no room, a seed that is too large, or that
** the policy does not use.
** LCC_ERROR_ARCHIVE: the archive is damaged, in use, or of another artifact.
** LCC_ERROR_UNSUPPORTED: this artifact has no archive.
*/
LCC_API lcc_status lcc_session_open(lcc_model *model, const lcc_session_options *options,
                                    lcc_session **session);

/* Ends a session and closes its archive. NULL is allowed. No other call may be using the handle. */
LCC_API void lcc_session_close(lcc_session *session);

/*
** Makes the call that the session is serving return LCC_STOPPED after the present step; it keeps
** every token up to there. Where none is being served, nothing happens. Any thread, at any time
** before lcc_session_close begins.
*/
LCC_API void lcc_cancel(lcc_session *session);

/* ---------------------------------------------------------------------------------------------
** Reading
*/

/* How far a feed has come. */
typedef struct lcc_progress {
    size_t size;
    int64_t tokens;  /* read by this feed */
    double fraction; /* of the text, 0 to 1; 0 where the end is not known yet */
    int64_t used;    /* entries per KV head held now */
    int64_t cycles;  /* of this feed so far */
    double seconds;  /* since it began */
} lcc_progress;

/* Called after every step; returning non-zero stops the feed (LCC_STOPPED). */
typedef int32_t (*lcc_progress_fn)(void *user, const lcc_progress *progress);

/* How a text is read. Set by lcc_feed_options_init. */
typedef struct lcc_feed_options {
    size_t size;
    /* Non-zero = never evict anything read up to the end of this text. */
    int32_t protect;
    /*
    ** Non-zero = the text ends here and a question follows: a policy with a `tail_size` then
    ** protects fewer recent entries in the last cycle of this call.
    */
    int32_t last;
    /* Non-zero = do not begin an empty session with the ids that begin a text. Ids never get them. */
    int32_t no_prefix;
    /* Non-zero = control tokens in the text, such as <|im_end|>, are read as plain text. */
    int32_t plain;
    /* For the cycles of this call only: a text, or ids; both NULL = the session's own. */
    const char *catalyst;
    size_t catalyst_length;
    const int32_t *catalyst_ids;
    size_t catalyst_count;
    /* NULL = none. */
    lcc_progress_fn progress;
    void *user;
} lcc_feed_options;

/* Defaults: all zero, catalyst_length LCC_NUL. */
LCC_API void lcc_feed_options_init(lcc_feed_options *options);

/*
** Reads a text of any length. A text that follows another one has the ids that it has when both are
** tokenized at once. `options` may be NULL. *read, where `read` is not NULL, is how many of its
** tokens were read, also when the call fails or is stopped: they are part of the session.
**
** LCC_ERROR_UNSUPPORTED: the artifact has no tokenizer tables: give ids. LCC_ERROR_CONFIG: the text
** is empty. LCC_ERROR_CACHE: more is protected than a cycle can keep, or the cache is
** full and the policy never evicts. LCC_STOPPED: lcc_cancel, or `progress`.
*/
LCC_API lcc_status lcc_feed(lcc_session *session, const char *text, size_t length,
                            const lcc_feed_options *options, size_t *read);

/* The same for token ids, which are read as they are: 0 .. vocab_size-1 each. */
LCC_API lcc_status lcc_feed_ids(lcc_session *session, const int32_t *ids, size_t count,
                                const lcc_feed_options *options, size_t *read);

/*
** The same piece by piece, for a text that is not in memory as a whole: begin, write any number of
** pieces, end. The result is that of one call with all pieces, wherever they are cut: also inside
** of a character. With `last`, the newest tokens are read only at the end, since what the last cycle
** keeps depends on how many follow it. Pieces are texts or ids, not both.
**
** Between begin and end, only lcc_feed_write, lcc_feed_write_ids, lcc_cancel and lcc_stats are
** allowed; others return LCC_ERROR_BUSY. Where a write fails or is stopped, the feed is over: the
** session has what was read, and lcc_feed_end is not needed. With `protect`, pieces are kept until
** the end. Errors as lcc_feed.
*/
LCC_API lcc_status lcc_feed_begin(lcc_session *session, const lcc_feed_options *options);
LCC_API lcc_status lcc_feed_write(lcc_session *session, const char *text, size_t length);
LCC_API lcc_status lcc_feed_write_ids(lcc_session *session, const int32_t *ids, size_t count);
LCC_API lcc_status lcc_feed_end(lcc_session *session, size_t *read);

/*
** Reads ids as lcc_feed_ids does, and writes to `nll` the negative log likelihood of each, in nats,
** given what the cache held: `count` floats. That of the first token of a text is 1e30.
*/
LCC_API lcc_status lcc_nll(lcc_session *session, const int32_t *ids, size_t count, float *nll);

/*
** What cycles look for: a text or ids, at most `catalyst_size` tokens. The word "beginning" stands
** for the first tokens of the text that is read. LCC_ERROR_CONFIG: the policy reads no catalyst.
*/
LCC_API lcc_status lcc_set_catalyst(lcc_session *session, const char *text, size_t length);
LCC_API lcc_status lcc_set_catalyst_ids(lcc_session *session, const int32_t *ids, size_t count);

/* Runs a cycle now, where there is something to evict: e.g. before lcc_save. */
LCC_API lcc_status lcc_distill(lcc_session *session);

/* One cycle: what it did. */
typedef struct lcc_cycle {
    size_t size;
    int64_t tokens;      /* read before it */
    int64_t used_before; /* entries per KV head before and after */
    int64_t used_after;
    double seconds;
} lcc_cycle;

/* lcc_kept_tokens and lcc_stats may be called in it; other calls on the session are LCC_ERROR_BUSY. */
typedef void (*lcc_cycle_fn)(void *user, const lcc_cycle *cycle);

/* Called after each cycle; NULL = not. `user` must live as long as the session. */
LCC_API lcc_status lcc_on_cycle(lcc_session *session, lcc_cycle_fn hook, void *user);

/* ---------------------------------------------------------------------------------------------
** Writing
*/

/*
** How to generate. What is "not given" is as generation_config.json of the model says; where that
** says nothing, the answer is greedy and ends when the model ends it. Set by
** lcc_generate_options_init.
*/
typedef struct lcc_generate_options {
    size_t size;
    int64_t max_new_tokens;    /* -1 = not given */
    double temperature;        /* 0 = the most probable token; -1 = not given */
    int64_t top_k;             /* draw among the k most probable; 0 = all; -1 = not given */
    double top_p;              /* among the fewest that have probability p; 1 = all; -1 = not given */
    double min_p;              /* among those min_p times as probable as the best; -1 = not given */
    double repetition_penalty; /* 1 = none; -1 = not given */
    int64_t seed;              /* 0 or more: the same answer every time; -1 = not given */
    /* Texts that end the answer and are not given out, besides the model's own. */
    const char *const *stop; /* `stop_count` texts, each with a zero at its end */
    size_t stop_count;
    /* Ids that end the answer, in place of the model's own where `ends_given` is non-zero. */
    const int32_t *ends;
    size_t ends_count;
    int32_t ends_given;
    int32_t no_recall; /* non-zero = bring nothing back from the archive for this prompt */
    int32_t no_prefix; /* as in lcc_feed_options */
    int32_t plain;     /* of the prompt, as in lcc_feed_options; of messages: see lcc_chat_start */
} lcc_generate_options;

/* Defaults: nothing given. */
LCC_API void lcc_generate_options_init(lcc_generate_options *options);

/*
** Begins an answer: checks the options, then reads the prompt as lcc_feed does. NULL as prompt = go
** on from what was read. Then call lcc_generate_next, or lcc_generate_next_id, until it returns
** LCC_DONE. Any other call that moves the session (feed, rewind, load, reset, another start) ends
** the answer; every token that was chosen is part of the session.
**
** LCC_ERROR_CONFIG: an option out of range; a choice among tokens asked for a greedy answer.
** LCC_ERROR_CACHE: nothing was read yet, and there is no prompt. Otherwise as lcc_feed.
*/
LCC_API lcc_status lcc_generate_start(lcc_session *session, const char *prompt, size_t length,
                                      const lcc_generate_options *options);
LCC_API lcc_status lcc_generate_start_ids(lcc_session *session, const int32_t *ids, size_t count,
                                          const lcc_generate_options *options);

/*
** The next piece of text that is certain: at least one whole character, nothing of a stop text.
** *piece is valid until the next call on the session; it is not zero-terminated: use *length.
** LCC_DONE: the answer is over; *piece is "". LCC_STOPPED: lcc_cancel; the answer can go on.
** LCC_ERROR_UNSUPPORTED: no tokenizer tables: use lcc_generate_next_id.
*/
LCC_API lcc_status lcc_generate_next(lcc_session *session, const char **piece, size_t *length);

/* The next token id, the one that ends the text included; LCC_DONE when the answer is over. */
LCC_API lcc_status lcc_generate_next_id(lcc_session *session, int32_t *id);

/* Gets a piece of an answer, valid during the call. Returning non-zero stops (LCC_STOPPED). */
typedef int32_t (*lcc_piece_fn)(void *user, const char *piece, size_t length);

/* lcc_generate_start, then lcc_generate_next until the end, each piece handed to `callback`. */
LCC_API lcc_status lcc_generate(lcc_session *session, const char *prompt, size_t length,
                                const lcc_generate_options *options, lcc_piece_fn callback,
                                void *user);

/* A message of a conversation: role "system", "user" or "assistant", and a text that ends with 0. */
typedef struct lcc_message {
    const char *role;
    const char *content;
} lcc_message;

/*
** Begins an answer to messages, in the model's own chat template (`turns` of the manifest).
**
** The messages are new ones: they follow what the session holds, the last answer included, which
** must not be given again. (Python's `chat` takes the whole conversation each time, and finds what is
** new.) An answer that was stopped is part of the conversation as far as it was given out. Behind
** anything else (a feed, lcc_rewind, lcc_load of a state that this library saved), the messages begin
** another conversation, after what the session holds. For another answer to the same message, call
** lcc_reset and give the whole conversation again, answers as messages of role "assistant".
**
** In an empty session the first one may be a system message. Then call lcc_generate_next as after
** lcc_generate_start. Control tokens in contents are read as plain text where options->plain is
** non-zero: set it for what others wrote.
**
** LCC_ERROR_UNSUPPORTED: the artifact has no `turns` or no tokenizer tables. LCC_ERROR_CONFIG: a
** role that the template does not know, or a system message that is not the first.
*/
LCC_API lcc_status lcc_chat_start(lcc_session *session, const lcc_message *messages, size_t count,
                                  const lcc_generate_options *options);

/*
** What stands before and behind a user's message in an empty session, for a message that is read in
** parts, such as a document and a question behind it: feed *before and the document, then generate
** from the question and *after; set `no_prefix` in both. Both are valid until the model is closed.
** Any thread. LCC_ERROR_UNSUPPORTED: the artifact has no `turns`.
*/
LCC_API lcc_status lcc_user_turn(const lcc_model *model, const char **before, const char **after);

/*
** The logits of the token after the last one, fed or generated: `capacity` floats at most, one for
** each id; *count, where not NULL, is vocab_size. LCC_ERROR_CACHE: nothing was read yet.
*/
LCC_API lcc_status lcc_next_logits(lcc_session *session, float *logits, size_t capacity,
                                   size_t *count);

/* ---------------------------------------------------------------------------------------------
** Going back, keeping, forgetting
*/

/*
** Takes back the newest tokens. LCC_ERROR_CACHE: some of them were read before the last cycle (or,
** of a model with recurrent layers, before the last text, prompt or message began).
*/
LCC_API lcc_status lcc_rewind(lcc_session *session, int64_t count);

/* Forgets everything that was read, and empties the archive of it; catalyst and hooks stay. */
LCC_API lcc_status lcc_reset(lcc_session *session);

/*
** Writes what the session holds to a file: its entries, not the whole cache, and the catalyst. It is
** written beside `path` and renamed. `dtype`: of keys and values, "float32" or "float16"; NULL = as
** the cache has them. Python's `session.load` reads it. LCC_ERROR_ARTIFACT: the disk refuses.
*/
LCC_API lcc_status lcc_save(lcc_session *session, const char *path, const char *dtype);

/*
** Goes on from a saved state, made here or by Python. Everything is checked before anything is
** changed. LCC_ERROR_ARTIFACT: no state file, a damaged one, or one of another artifact.
** LCC_ERROR_CACHE: more entries than this session has slots. LCC_ERROR_ARCHIVE: the session's
** archive is not that of the state.
*/
LCC_API lcc_status lcc_load(lcc_session *session, const char *path);

/*
** Opens an archive for an empty session, as lcc_session_open does with the same options; NULL and 0
** are the defaults. lcc_archive_detach closes it: the session goes on without one.
*/
LCC_API lcc_status lcc_archive_attach(lcc_session *session, const char *path, const char *dtype,
                                      int64_t limit);
LCC_API lcc_status lcc_archive_detach(lcc_session *session);

/* ---------------------------------------------------------------------------------------------
** What a session holds
*/

/* A moment of a session; times in seconds, cycles are part of the time they happened in. */
typedef struct lcc_session_stats {
    size_t size;
    double load_seconds;        /* of the model and of this session's buffers */
    int64_t prefill_tokens;     /* read as input */
    double prefill_seconds;
    int64_t decode_tokens;      /* generated after the first of each answer */
    double decode_seconds;
    double first_token_seconds; /* of the last answer; -1 = there was none */
    int64_t cycles;
    double cycle_seconds;
    int64_t recalls;
    double recall_seconds;
    int64_t recalled;           /* entries that the last prompt brought back; -1 = no recall */
    int64_t tokens;             /* of the text, fed and generated */
    int64_t used;               /* entries per KV head held now */
    int64_t rewindable;         /* newest tokens that lcc_rewind can take back */
    int64_t capacity;           /* slots per KV head of this session */
    int64_t budget;
    int64_t chunk_size;
    int64_t cache_bytes;        /* of all buffers: it never changes */
    int64_t held_bytes;         /* of them in use: what lcc_save writes */
    int64_t archive_rows;       /* tokens in the archive; -1 = there is none */
    int64_t archive_bytes;      /* of its file; -1 = there is none */
    const char *archive_stopped; /* why nothing more is archived, until the next call; NULL = it is */
    int64_t peak_rss_bytes;     /* most memory the process ever had; -1 = the system does not say */
} lcc_session_stats;

/* Set stats->size first: `stats.size = sizeof stats`. */
LCC_API lcc_status lcc_stats(lcc_session *session, lcc_session_stats *stats);

/*
** The token positions of the entries that a layer holds, in order: *heads rows of *used numbers.
** At most `capacity` numbers are written, where *heads times *used says how many there are.
*/
LCC_API lcc_status lcc_kept_tokens(lcc_session *session, int32_t layer, int64_t *positions,
                                   size_t capacity, size_t *heads, size_t *used);

#ifdef __cplusplus
}
#endif

#endif
