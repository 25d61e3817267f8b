'use strict';

const { LccError, isError } = require('./errors.js');
const { Handle } = require('./handle.js');
const { later, library, renamed, sized } = require('./library.js');
const { Session } = require('./session.js');
const { ids, known, number, terminated, utf8 } = require('./values.js');

/** An artifact that was opened: weights, programs and tokenizer, for any number of sessions. */
class Model {
  #lcc;
  #handle;

  /** Use `Model.open`. */
  constructor(lcc, pointer) {
    this.#lcc = lcc;
    this.#handle = new Handle('model', pointer, lcc.model_close);
  }

  static async open(path, options = {}) {
    known(options, 'library', 'engineLibrary', 'target', 'threads', 'mapped', 'verifySizesOnly',
      'allowNative');
    const lcc = library(terminated('library', options.library));
    const folder = utf8('path', path).toString();
    terminated('path', path);
    const how = sized('lcc_model_options', {
      engine_library: terminated('engineLibrary', options.engineLibrary),
      target: terminated('target', options.target),
      threads: number('threads', options.threads, 0),
      mapped: options.mapped ? 1 : 0,
      verify_sizes_only: options.verifySizesOnly ? 1 : 0,
      allow_native: options.allowNative ? 1 : 0,
    });
    const model = [null];
    const failed = await later(lcc.model_open, folder, how, model);
    // A message belongs to the thread of the call, and there is no session to ask: fail again here.
    if (isError(failed)) {
      check(lcc, lcc.model_open(folder, how, model));
    }
    return new Model(lcc, model[0]);
  }

  info() {
    const info = sized('lcc_model_info');
    check(this.#lcc, this.#lcc.model_get_info(this.#handle.pointer, info));
    const found = renamed(info);
    for (const name of ['knowsText', 'knowsChat', 'readsCatalyst', 'hasArchive']) {
      found[name] = found[name] !== 0;
    }
    return found;
  }

  session(options = {}) {
    known(
      options, 'capacity', 'budget', 'chunkSize', 'seed', 'archive', 'archiveDtype', 'archiveLimit',
    );
    const how = sized('lcc_session_options', {
      capacity: number('capacity', options.capacity, 0),
      budget: number('budget', options.budget, 0),
      chunk_size: number('chunkSize', options.chunkSize, 0),
      seed: number('seed', options.seed, -1),
      archive_path: terminated('archive', options.archive),
      archive_dtype: terminated('archiveDtype', options.archiveDtype),
      archive_limit: number('archiveLimit', options.archiveLimit, 0),
    });
    const session = [null];
    check(this.#lcc, this.#lcc.session_open(this.#handle.pointer, how, session));
    return new Session(this.#lcc, session[0]);
  }

  encode(text, { plain = false } = {}) {
    const bytes = utf8('text', text);
    const count = [0];
    let found = new Int32Array(bytes.length + 1);
    for (let room = 0; room !== found.length; ) {
      room = found.length;
      const how = [bytes, bytes.length, plain ? 1 : 0, found, room];
      check(this.#lcc, this.#lcc.encode(this.#handle.pointer, ...how, count));
      if (count[0] > room) {
        found = new Int32Array(count[0]);
      }
    }
    return found.slice(0, count[0]);
  }

  decode(values) {
    const given = ids('ids', values);
    return this.#text(this.#lcc.decode, given, 8 * given.length);
  }

  mark(text) {
    const bytes = utf8('text', text);
    return this.#text(this.#lcc.mark, bytes, bytes.length);
  }

  userTurn() {
    const [before, after] = [[null], [null]];
    check(this.#lcc, this.#lcc.user_turn(this.#handle.pointer, before, after));
    return { before: before[0], after: after[0] };
  }

  async checkGolden() {
    const again = (pointer) => {
      this.#lcc.check_golden(pointer);
      return this.#lcc.error_message();
    };
    await this.#handle.serve(this.#lcc.check_golden, [], { message: again });
  }

  close() {
    this.#handle.close();
  }

  /** What a function makes of bytes or ids; `guess`: its likely length in bytes. */
  #text(callee, given, guess) {
    const length = [0];
    let text = Buffer.alloc(guess + 1);
    for (let room = 0; room !== text.length; ) {
      room = text.length;
      const how = [given, given.length, text, room];
      check(this.#lcc, callee(this.#handle.pointer, ...how, length));
      if (length[0] > room) {
        text = Buffer.alloc(length[0]);
      }
    }
    return text.toString('utf8', 0, length[0]);
  }
}

function check(lcc, result) {
  if (isError(result)) {
    throw new LccError(result, lcc.error_message());
  }
}

module.exports = { Model };
