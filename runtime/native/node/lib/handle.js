'use strict';

const { LccError, isError, status } = require('./errors.js');
const { later } = require('./library.js');

/**
 * A pointer of the native library that serves one call at a time. It is freed when it is closed and
 * no call uses it any more: closing is safe at any time.
 */
class Handle {
  #what;
  #pointer;
  #free;
  #closed = false;
  #serving = false;
  #calls = 0;

  constructor(what, pointer, free) {
    this.#what = what;
    this.#pointer = pointer;
    this.#free = free;
  }

  get pointer() {
    if (this.#closed) {
      throw new Error(`the ${this.#what} is closed; open another one`);
    }
    return this.#pointer;
  }

  /** The pointer, where no call is being served; otherwise an error with status BUSY. */
  idle() {
    const pointer = this.pointer;
    if (this.#serving) {
      throw new LccError(
        status.BUSY,
        `the ${this.#what} is serving another call; await it, or cancel() it, before this one`,
      );
    }
    return pointer;
  }

  /**
   * Calls a function on another thread, with the pointer before its values, and gives its status.
   * Nothing else may be called with this pointer until it is over.
   *
   * @param message what tells the error; it is asked before any other call
   * @param finish run before any other call: to read what is only valid until then
   */
  async serve(callee, values, { message, finish = () => {} }) {
    const pointer = this.idle();
    this.#serving = true;
    this.#calls += 1;
    try {
      const result = await later(callee, pointer, ...values);
      if (isError(result)) {
        throw new LccError(result, message(pointer));
      }
      finish(result);
      return result;
    } finally {
      this.#serving = false;
      this.#freeIfUnused();
    }
  }

  /** Calls `stop` until the present call is over: it may not have reached the library yet. */
  cancel(stop) {
    const call = this.#calls;
    const again = () => {
      if (this.#serving && this.#calls === call) {
        stop(this.#pointer);
        setTimeout(again, 2);
      }
    };
    again();
  }

  close(stop = null) {
    if (!this.#closed) {
      this.#closed = true;
      if (stop !== null) {
        this.cancel(stop);
      }
      this.#freeIfUnused();
    }
  }

  #freeIfUnused() {
    if (this.#closed && !this.#serving && this.#pointer !== null) {
      this.#free(this.#pointer);
      this.#pointer = null;
    }
  }
}

module.exports = { Handle };
