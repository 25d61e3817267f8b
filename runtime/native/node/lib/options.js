'use strict';

const { sized } = require('./library.js');
const { ids, known, number, terminated } = require('./values.js');

/** What generate and chat take, as the library has it. */
function generateOptions(options) {
  known(
    options, 'maxNewTokens', 'temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed',
    'stop', 'ends', 'recall', 'prefix', 'plain',
  );
  const real = (name) => number(name, options[name], -1, { whole: false });
  const whole = (name) => number(name, options[name], -1);
  const texts = typeof options.stop === 'string' ? [options.stop] : (options.stop ?? []);
  const ends = options.ends === undefined ? null : ids('ends', options.ends);
  return sized('lcc_generate_options', {
    max_new_tokens: whole('maxNewTokens'),
    temperature: real('temperature'),
    top_k: whole('topK'),
    top_p: real('topP'),
    min_p: real('minP'),
    repetition_penalty: real('repetitionPenalty'),
    seed: whole('seed'),
    stop: texts.length === 0 ? null : texts.map((text, i) => terminated(`stop text ${i}`, text)),
    stop_count: texts.length,
    ends: ends?.length ? ends : null,
    ends_count: ends?.length ?? 0,
    ends_given: ends === null ? 0 : 1,
    no_recall: options.recall === false ? 1 : 0,
    no_prefix: options.prefix === false ? 1 : 0,
    plain: options.plain ? 1 : 0,
  });
}

module.exports = { generateOptions };
