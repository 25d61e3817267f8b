'use strict';

const { LccError, status } = require('./lib/errors.js');
const { Model } = require('./lib/model.js');
const { Session } = require('./lib/session.js');
const { version, formatVersion } = require('./lib/library.js');

module.exports = { LccError, Model, Session, formatVersion, status, version };
