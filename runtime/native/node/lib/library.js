'use strict';

const koffi = require('koffi');
const { LccError, refuse, status } = require('./errors.js');

// koffi runs calls on stacks of its own, whose 128 KiB are too few for an engine: it would crash.
const STACK_BYTES = 8 << 20;
if (koffi.config().async_stack_size < STACK_BYTES) {
  try {
    koffi.config({ async_stack_size: STACK_BYTES, sync_stack_size: STACK_BYTES });
  } catch {
    // koffi is in use already: `load` says so
  }
}

const NAMES = { win32: 'lcc.dll', darwin: 'liblcc.dylib' };

// Members in the order of lcc.h. `size` comes first and is set by `sized`.
const STRUCTS = {
  lcc_model_options: {
    size: 'size_t', engine_library: 'const char *', target: 'const char *', threads: 'int32_t',
    mapped: 'int32_t', verify_sizes_only: 'int32_t', allow_native: 'int32_t',
  },
  lcc_model_info: {
    size: 'size_t', name: 'const char *', architecture: 'const char *', target: 'const char *',
    policy: 'const char *', precision: 'const char *', fingerprint: 'const char *',
    vocab_size: 'int32_t', layers: 'int32_t', capacity: 'int64_t', budget: 'int64_t',
    chunk_size: 'int64_t', knows_text: 'int32_t', knows_chat: 'int32_t', reads_catalyst: 'int32_t',
    has_archive: 'int32_t', load_seconds: 'double',
  },
  lcc_session_options: {
    size: 'size_t', capacity: 'int64_t', budget: 'int64_t', chunk_size: 'int64_t', seed: 'int64_t',
    archive_path: 'const char *', archive_dtype: 'const char *', archive_limit: 'int64_t',
  },
  lcc_progress: {
    size: 'size_t', tokens: 'int64_t', fraction: 'double', used: 'int64_t', cycles: 'int64_t',
    seconds: 'double',
  },
  lcc_feed_options: {
    size: 'size_t', protect: 'int32_t', last: 'int32_t', no_prefix: 'int32_t', plain: 'int32_t',
    catalyst: 'void *', catalyst_length: 'size_t', catalyst_ids: 'void *', catalyst_count: 'size_t',
    progress: 'void *', user: 'void *',
  },
  lcc_cycle: {
    size: 'size_t', tokens: 'int64_t', used_before: 'int64_t', used_after: 'int64_t',
    seconds: 'double',
  },
  lcc_generate_options: {
    size: 'size_t', max_new_tokens: 'int64_t', temperature: 'double', top_k: 'int64_t',
    top_p: 'double', min_p: 'double', repetition_penalty: 'double', seed: 'int64_t',
    stop: 'const char **', stop_count: 'size_t', ends: 'void *', ends_count: 'size_t',
    ends_given: 'int32_t', no_recall: 'int32_t', no_prefix: 'int32_t', plain: 'int32_t',
  },
  lcc_message: { role: 'const char *', content: 'const char *' },
  lcc_session_stats: {
    size: 'size_t', load_seconds: 'double', prefill_tokens: 'int64_t', prefill_seconds: 'double',
    decode_tokens: 'int64_t', decode_seconds: 'double', first_token_seconds: 'double',
    cycles: 'int64_t', cycle_seconds: 'double', recalls: 'int64_t', recall_seconds: 'double',
    recalled: 'int64_t', tokens: 'int64_t', used: 'int64_t', rewindable: 'int64_t',
    capacity: 'int64_t', budget: 'int64_t', chunk_size: 'int64_t', cache_bytes: 'int64_t',
    held_bytes: 'int64_t', archive_rows: 'int64_t', archive_bytes: 'int64_t',
    archive_stopped: 'const char *', peak_rss_bytes: 'int64_t',
  },
};

// Texts and ids are buffers with a length. A piece is a bare pointer: it does not end with a zero.
const FUNCTIONS = `
const char *lcc_version();
int32_t lcc_format_version();
const char *lcc_error_message();
const char *lcc_session_error_message(void *session);
int32_t lcc_model_open(const char *path, lcc_model_options *options, _Out_ void **model);
void lcc_model_close(void *model);
int32_t lcc_model_get_info(void *model, _Inout_ lcc_model_info *info);
int32_t lcc_encode(void *model, void *text, size_t length, int32_t plain, void *ids, size_t
    capacity, _Out_ size_t *count);
int32_t lcc_decode(void *model, void *ids, size_t count, void *text, size_t capacity, _Out_ size_t
    *length);
int32_t lcc_mark(void *model, void *text, size_t length, void *marked, size_t capacity, _Out_ size_t
    *count);
int32_t lcc_check_golden(void *model);
int32_t lcc_user_turn(void *model, _Out_ const char **before, _Out_ const char **after);
int32_t lcc_session_open(void *model, lcc_session_options *options, _Out_ void **session);
void lcc_session_close(void *session);
void lcc_cancel(void *session);
int32_t lcc_feed(void *session, void *text, size_t length, lcc_feed_options *options, _Out_ size_t
    *read);
int32_t lcc_feed_ids(void *session, void *ids, size_t count, lcc_feed_options *options, _Out_
    size_t *read);
int32_t lcc_feed_begin(void *session, lcc_feed_options *options);
int32_t lcc_feed_write(void *session, void *text, size_t length);
int32_t lcc_feed_write_ids(void *session, void *ids, size_t count);
int32_t lcc_feed_end(void *session, _Out_ size_t *read);
int32_t lcc_nll(void *session, void *ids, size_t count, void *nll);
int32_t lcc_set_catalyst(void *session, void *text, size_t length);
int32_t lcc_set_catalyst_ids(void *session, void *ids, size_t count);
int32_t lcc_distill(void *session);
int32_t lcc_on_cycle(void *session, void *hook, void *user);
int32_t lcc_generate_start(void *session, void *prompt, size_t length, lcc_generate_options
    *options);
int32_t lcc_generate_start_ids(void *session, void *ids, size_t count, lcc_generate_options
    *options);
int32_t lcc_generate_next(void *session, _Out_ void **piece, _Out_ size_t *length);
int32_t lcc_generate_next_id(void *session, _Out_ int32_t *id);
int32_t lcc_chat_start(void *session, lcc_message *messages, size_t count, lcc_generate_options
    *options);
int32_t lcc_next_logits(void *session, void *logits, size_t capacity, _Out_ size_t *count);
int32_t lcc_rewind(void *session, int64_t count);
int32_t lcc_reset(void *session);
int32_t lcc_save(void *session, const char *path, const char *dtype);
int32_t lcc_load(void *session, const char *path);
int32_t lcc_archive_attach(void *session, const char *path, const char *dtype, int64_t limit);
int32_t lcc_archive_detach(void *session);
int32_t lcc_stats(void *session, _Inout_ lcc_session_stats *stats);
int32_t lcc_kept_tokens(void *session, int32_t layer, void *positions, size_t capacity, _Out_
    size_t *heads, _Out_ size_t *used);
`;

let loaded = null;

/** The functions of liblcc by their names without `lcc_`; loaded once. */
function library(path) {
  const usual = process.env.LCC_LIBRARY ?? NAMES[process.platform] ?? 'liblcc.so';
  const file = path ?? loaded?.file ?? usual;
  if (loaded === null) {
    loaded = { file, functions: load(file) };
  } else if (loaded.file !== file) {
    refuse(`library is ${file}, but ${loaded.file} is loaded already; a process has one liblcc`);
  }
  return loaded.functions;
}

function load(file) {
  const bytes = koffi.config().async_stack_size;
  if (bytes < STACK_BYTES) {
    throw new LccError(
      status.TARGET,
      `koffi has stacks of ${bytes} bytes, wanted ${STACK_BYTES}: it was used before; require ` +
        'long-context-compiler before other packages that load libraries',
    );
  }
  let opened;
  try {
    opened = koffi.load(file);
  } catch (error) {
    throw new LccError(
      status.TARGET,
      `${error.message}; give the path of liblcc as option library or in LCC_LIBRARY`,
    );
  }
  for (const [name, members] of Object.entries(STRUCTS)) {
    koffi.struct(name, members);
  }
  koffi.proto('int32_t lcc_progress_fn(void *user, void *progress)');
  koffi.proto('void lcc_cycle_fn(void *user, void *cycle)');
  const lines = FUNCTIONS.split(';').map((line) => line.replace(/\s+/g, ' ').trim());
  return Object.fromEntries(
    lines.filter(Boolean).map((line) => [/lcc_(\w+)\(/.exec(line)[1], opened.func(line)]),
  );
}

/** A struct with its size set and every member that is not given zero. */
function sized(name, members = {}) {
  const zero = ([key, type]) => [key, type.endsWith('*') ? null : 0];
  const none = Object.fromEntries(Object.entries(STRUCTS[name]).map(zero));
  return { ...none, size: koffi.sizeof(name), ...members };
}

/** A struct of numbers that a callback was given, without its size, in JavaScript's names. */
function received(name, pointer) {
  return renamed(koffi.decode(pointer, name));
}

/** snake_case members to camelCase, without `size`. */
function renamed({ size, ...members }) {
  const camel = (key) => key.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(members).map(([key, value]) => [camel(key), value]));
}

/** The bytes behind a pointer, copied, as text. */
function textAt(pointer, length) {
  return length === 0 ? '' : Buffer.from(koffi.decode(pointer, 'uint8_t', length)).toString('utf8');
}

/** Calls a function on a thread of its own; the promise is of its result. */
function later(callee, ...values) {
  return new Promise((resolve, reject) => {
    // The arguments are held by this closure until the call is over: C reads buffers in place.
    callee.async(...values, (error, result) => (error ? reject(error) : resolve(result, values)));
  });
}

function register(hook, type) {
  return koffi.register(hook, `${type} *`);
}

const version = () => library().version();
const formatVersion = () => library().format_version();

module.exports = {
  STRUCTS, formatVersion, later, library, received, register, renamed, sized, textAt, version,
  unregister: koffi.unregister,
};
