'use strict';

const { refuse } = require('./errors.js');

/** A text in UTF-8: the library takes its length, so that it may have zero bytes. */
function utf8(what, text) {
  if (typeof text !== 'string') {
    refuse(`${what} is ${describe(text)}, wanted a string`);
  }
  if (!text.isWellFormed()) {
    refuse(`${what} has half of a surrogate pair, which no UTF-8 has; wanted whole characters`);
  }
  return Buffer.from(text, 'utf8');
}

/** A string for a parameter that ends with a zero byte in C; null where it is not given. */
function terminated(what, text) {
  if (text === undefined || text === null) {
    return null;
  }
  utf8(what, text);
  if (text.includes('\0')) {
    refuse(`${what} has a zero character at ${text.indexOf('\0')}; leave it out`);
  }
  return text;
}

/** Token ids as the library takes them. */
function ids(what, values) {
  const list = Array.from(values ?? refuse(`${what} are not given`));
  for (const id of list) {
    if (!Number.isInteger(id) || id < -(2 ** 31) || id >= 2 ** 31) {
      refuse(`${what} have ${describe(id)} among them, wanted whole numbers`);
    }
  }
  return Int32Array.from(list);
}

/** An option that is a number; `missing` where it is not given. */
function number(what, value, missing, { whole = true } = {}) {
  if (value === undefined || value === null) {
    return missing;
  }
  if (typeof value !== 'number' || Number.isNaN(value) || (whole && !Number.isSafeInteger(value))) {
    refuse(`${what} is ${describe(value)}, wanted a ${whole ? 'whole ' : ''}number`);
  }
  return value;
}

/** Refuses options that nobody knows: a misspelt one would do nothing. */
function known(options, ...names) {
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      refuse(`unknown option ${name}; known ones: ${names.join(', ')}`);
    }
  }
}

function describe(value) {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : String(value);
}

module.exports = { ids, known, number, terminated, utf8 };
