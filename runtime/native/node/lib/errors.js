'use strict';

/** Numbers of lcc.h. A newer library may have more. */
const status = Object.freeze({
  CONFIG: 1,
  TARGET: 2,
  ARTIFACT: 3,
  ARCHIVE: 4,
  CACHE: 5,
  MEMORY: 6,
  BUSY: 7,
  UNSUPPORTED: 8,
  GOLDEN: 9,
  INTERNAL: 10,
  TRUST: 11,
});
const DONE = 100;
const STOPPED = 101;

/** What went wrong in a call: `status` is one of the numbers above, `message` is for the user. */
class LccError extends Error {
  constructor(number, message) {
    super(message);
    this.name = 'LccError';
    this.status = number;
  }
}

/** Whether a status is an error, and not another way in which a call ended. */
function isError(number) {
  return number > 0 && number < DONE;
}

function refuse(message) {
  throw new LccError(status.CONFIG, message);
}

module.exports = { DONE, STOPPED, LccError, isError, refuse, status };
