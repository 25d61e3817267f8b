'use strict';

const { DONE, LccError, STOPPED, isError, refuse } = require('./errors.js');
const { Handle } = require('./handle.js');
const { received, register, renamed, sized, textAt, unregister } = require('./library.js');
const { generateOptions } = require('./options.js');
const { ids, known, number, terminated, utf8 } = require('./values.js');

/** One text, read and continued, in a cache of fixed size. It serves one call at a time. */
class Session {
  #lcc;
  #handle;
  #hook = null; // of cycles, as registered
  #thrown = []; // by callbacks of the call that is being served

  /** Whether the last feed or answer was stopped, by cancel() or by a callback. */
  stopped = false;

  /** Use `Model.session`. */
  constructor(lcc, pointer) {
    this.#lcc = lcc;
    this.#handle = new Handle('session', pointer, (held) => {
      lcc.session_close(held);
      this.#replaceHook(null);
    });
  }

  async feed(text, options = {}) {
    const isText = typeof text === 'string';
    const given = isText ? utf8('text', text) : ids('ids', text);
    const read = [0];
    const call = isText ? this.#lcc.feed : this.#lcc.feed_ids;
    await this.#withFeedOptions(options, (how) => this.#move(call, given, given.length, how, read));
    return read[0];
  }

  async feedStream(source, options = {}) {
    const read = [0];
    await this.#withFeedOptions(options, async (how) => {
      await this.#move(this.#lcc.feed_begin, how);
      const before = this.stats().tokens;
      let over = false; // of itself: a write failed or was stopped
      try {
        for await (const piece of source) {
          const isText = typeof piece === 'string' || piece instanceof Uint8Array;
          const given = typeof piece === 'string' ? utf8('text', piece) : piece;
          const part = isText ? given : ids('ids', piece);
          const call = isText ? this.#lcc.feed_write : this.#lcc.feed_write_ids;
          over = true;
          over = (await this.#move(call, part, part.length)) === STOPPED;
          if (over) {
            read[0] = this.stats().tokens - before;
            return;
          }
        }
      } catch (error) {
        if (!over) {
          await this.#move(this.#lcc.feed_end, read); // what came before is part of the session
        }
        throw error;
      }
      await this.#move(this.#lcc.feed_end, read);
    });
    return read[0];
  }

  async nll(values) {
    const given = ids('ids', values);
    const found = new Float32Array(given.length);
    await this.#move(this.#lcc.nll, given, given.length, found);
    return found;
  }

  async distill() {
    await this.#move(this.#lcc.distill);
  }

  setCatalyst(catalyst) {
    const pointer = this.#handle.idle();
    const isText = typeof catalyst === 'string';
    const given = isText ? utf8('catalyst', catalyst) : ids('catalyst', catalyst);
    const call = isText ? this.#lcc.set_catalyst : this.#lcc.set_catalyst_ids;
    this.#check(call(pointer, given, given.length));
  }

  onCycle(hook) {
    const pointer = this.#handle.idle();
    const next = hook ? register((_, cycle) => this.#cycle(hook, cycle), 'lcc_cycle_fn') : null;
    this.#check(this.#lcc.on_cycle(pointer, next, null));
    this.#replaceHook(next);
  }

  generate(prompt = null, options = {}) {
    return this.#answer(() => this.#start(prompt, options), () => this.#piece());
  }

  generateIds(prompt = null, options = {}) {
    return this.#answer(() => this.#start(prompt, options), () => this.#id());
  }

  chat(messages, options = {}) {
    const start = () => {
      const list = messages.map(({ role, content }, i) => ({
        role: given(`role of message ${i}`, role),
        content: given(`content of message ${i}`, content),
      }));
      return this.#move(this.#lcc.chat_start, list, list.length, generateOptions(options));
    };
    return this.#answer(start, () => this.#piece());
  }

  nextLogits() {
    const pointer = this.#handle.idle();
    const count = [0];
    this.#check(this.#lcc.next_logits(pointer, null, 0, count));
    const logits = new Float32Array(count[0]);
    this.#check(this.#lcc.next_logits(pointer, logits, logits.length, count));
    return logits;
  }

  async rewind(count) {
    await this.#move(this.#lcc.rewind, number('count', count, 0));
  }

  async reset() {
    await this.#move(this.#lcc.reset);
  }

  async save(path, { dtype = null } = {}) {
    await this.#move(this.#lcc.save, file(path), terminated('dtype', dtype));
  }

  async load(path) {
    await this.#move(this.#lcc.load, file(path));
  }

  attachArchive(path, { dtype = null, limit = 0 } = {}) {
    const how = [file(path), terminated('dtype', dtype), number('limit', limit, 0)];
    this.#check(this.#lcc.archive_attach(this.#handle.idle(), ...how));
  }

  detachArchive() {
    this.#check(this.#lcc.archive_detach(this.#handle.idle()));
  }

  stats() {
    const stats = sized('lcc_session_stats');
    this.#check(this.#lcc.stats(this.#handle.idle(), stats));
    return renamed(stats);
  }

  keptTokens(layer) {
    const pointer = this.#handle.idle();
    const heads = [0];
    const used = [0];
    this.#check(this.#lcc.kept_tokens(pointer, layer, null, 0, heads, used));
    const all = new BigInt64Array(Number(heads[0]) * Number(used[0]));
    this.#check(this.#lcc.kept_tokens(pointer, layer, all, all.length, heads, used));
    const row = (i) => Array.from(all.slice(i * used[0], (i + 1) * used[0]), Number);
    return Array.from({ length: heads[0] }, (_, i) => row(i));
  }

  cancel() {
    this.#handle.cancel(this.#lcc.cancel);
  }

  close() {
    this.#handle.close(this.#lcc.cancel);
  }

  async #withFeedOptions(options, call) {
    known(options, 'protect', 'last', 'prefix', 'plain', 'catalyst', 'progress');
    const { catalyst = null } = options;
    const words = typeof catalyst === 'string' ? utf8('catalyst', catalyst) : null;
    const asked = catalyst === null || words !== null ? null : ids('catalyst', catalyst);
    const progress = options.progress
      ? register((_, now) => this.#progress(options.progress, now), 'lcc_progress_fn')
      : null;
    const how = sized('lcc_feed_options', {
      protect: options.protect ? 1 : 0,
      last: options.last ? 1 : 0,
      no_prefix: options.prefix === false ? 1 : 0,
      plain: options.plain ? 1 : 0,
      catalyst: words,
      catalyst_length: words?.length ?? 0,
      catalyst_ids: asked,
      catalyst_count: asked?.length ?? 0,
      progress,
    });
    try {
      await call(how);
    } finally {
      if (progress !== null) {
        unregister(progress);
      }
    }
  }

  #start(prompt, options) {
    const how = generateOptions(options);
    if (prompt === null) {
      return this.#move(this.#lcc.generate_start, null, 0, how);
    }
    const isText = typeof prompt === 'string';
    const given = isText ? utf8('prompt', prompt) : ids('prompt', prompt);
    const call = isText ? this.#lcc.generate_start : this.#lcc.generate_start_ids;
    return this.#move(call, given, given.length, how);
  }

  /** Reads the prompt now, and makes the rest as it is asked for. */
  #answer(start, next) {
    const begun = start();
    begun.catch(() => {}); // told to whoever asks for the first piece
    return (async function* pieces() {
      if ((await begun) === STOPPED) {
        return;
      }
      for (let piece = await next(); piece !== null; piece = await next()) {
        yield piece;
      }
    })();
  }

  async #piece() {
    const [piece, length] = [[null], [0]];
    let text = null;
    const finish = (result) => {
      text = result === 0 ? textAt(piece[0], length[0]) : null;
    };
    await this.#serve(this.#lcc.generate_next, [piece, length], finish);
    return text;
  }

  async #id() {
    const id = [0];
    return (await this.#move(this.#lcc.generate_next_id, id)) === 0 ? id[0] : null;
  }

  #move(callee, ...values) {
    return this.#serve(callee, values, () => {});
  }

  /** A call on another thread; what a callback threw goes before what the call says. */
  async #serve(callee, values, finish) {
    const message = (pointer) => this.#lcc.session_error_message(pointer);
    this.#handle.idle();
    this.#thrown = [];
    try {
      const result = await this.#handle.serve(callee, values, { message, finish });
      this.stopped = result === STOPPED;
      return result;
    } finally {
      if (this.#thrown.length > 0) {
        throw this.#thrown[0];
      }
    }
  }

  #check(result) {
    if (isError(result)) {
      throw new LccError(result, this.#lcc.error_message());
    }
  }

  #replaceHook(next) {
    if (this.#hook !== null) {
      unregister(this.#hook);
    }
    this.#hook = next;
  }

  /** Returns non-zero to stop. */
  #progress(listener, pointer) {
    try {
      const stop = this.#thrown.length > 0 || listener(received('lcc_progress', pointer)) === false;
      return stop ? 1 : 0;
    } catch (error) {
      this.#thrown.push(error);
      return 1;
    }
  }

  #cycle(hook, pointer) {
    try {
      hook(received('lcc_cycle', pointer));
    } catch (error) {
      this.#thrown.push(error);
      this.cancel(); // a hook of cycles has no other way to stop
    }
  }
}

function given(what, text) {
  return terminated(what, text) ?? refuse(`${what} is not given`);
}

function file(path) {
  return given('path', path);
}

module.exports = { Session };
