// Uses the whole package, and prints what comes out as `name<TAB>value`, a line each.
'use strict';

const fs = require('fs');
const { LccError, Model, formatVersion, status, version } = require('long-context-compiler');

const [folder, engineLibrary, textFile, scratch] = process.argv.slice(2);
const six = { maxNewTokens: 6, ends: [] };
const show = (name, value) => console.log(`${name}\t${value}`);
const bytes = (text) => JSON.stringify([...Buffer.from(text, 'utf8')]);

async function all(answer) {
  const found = [];
  for await (const piece of answer) {
    found.push(piece);
  }
  return found;
}

async function refused(name, call) {
  try {
    await call();
    show(name, 'no error');
  } catch (error) {
    const number = error instanceof LccError ? Object.keys(status)[error.status - 1] : error.name;
    show(name, `${number}: ${error.message}`);
  }
}

async function read(model, ids) {
  const session = model.session();
  const cycles = [];
  let [fraction, ticks] = [0, 0];
  session.onCycle((cycle) => cycles.push(cycle.usedAfter));
  const clock = setInterval(() => ticks++, 1);
  const count = await session.feed(ids, { progress: (now) => void (fraction = now.fraction) });
  clearInterval(clock);
  show('read', `${count} ${fraction} ${session.stopped}`);
  show('event loop goes on', ticks > 0);
  show('kept', JSON.stringify(session.keptTokens(1)));
  const stats = session.stats();
  show('stats', `${stats.tokens} ${stats.cycles} ${stats.capacity}`);
  show('cycles', cycles.length === stats.cycles && cycles.every((used) => used > 0));
  const logits = session.nextLogits();
  const next = await all(session.generateIds(null, six));
  show('next', JSON.stringify(next));
  show('best', logits.indexOf(Math.max(...logits)) === next[0]);
  await session.rewind(6);
  show('rewound', session.stats().tokens);
  await session.reset();
  show('nll', (await session.nll(ids.slice(0, 5))).length);
  session.close();
  await refused('after close', () => session.feed(ids));
}

async function stream(model, text) {
  const session = model.session();
  const blocks = () => fs.createReadStream(textFile, { highWaterMark: 7 }); // cuts characters
  show('stream', await session.feedStream(blocks(), { prefix: false }));
  show('stream next', JSON.stringify(await all(session.generateIds(null, six))));
  await session.reset();
  const ids = model.encode(text);
  show('parts', await session.feedStream([ids.slice(0, 40), [...ids.slice(40)]]));
  show('parts next', JSON.stringify(await all(session.generateIds(null, six))));
  await session.reset();
  async function* broken() {
    yield text.slice(0, 50);
    throw new Error('from the stream');
  }
  await refused('stream fails', () => session.feedStream(broken()));
  show('stream kept', session.stats().tokens >= 50 && (await session.feed(text)) > 50);
  const two = (now) => now.tokens < 30;
  const read = await session.feedStream(blocks(), { progress: two });
  show('stream stopped', `${session.stopped} ${read > 0 && read < text.length}`);
  session.close();
}

async function write(model, text) {
  const session = model.session();
  const file = `${scratch}/\u4e66 state`;
  await session.feed(text);
  await session.save(file);
  const answer = (await all(session.generate('Who?', six))).join('');
  show('answer', bytes(answer));
  await session.load(file);
  show('again', (await all(session.generate('Who?', six))).join('') === answer);
  await session.load(file);
  const stop = [...answer].find((letter, i) => i > 0 && letter !== '\0');
  const before = (await all(session.generate('Who?', { ...six, stop }))).join('');
  show('stop', before === answer.slice(0, answer.indexOf(stop)));
  await session.reset();
  const talk = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Who are you?' },
  ];
  show('chat', bytes((await all(session.chat(talk, six))).join('')));
  await refused('option', () => all(session.generate('Who?', { topP: 7 })));
  await refused('unknown option', () => all(session.generate('Who?', { maxTokens: 7 })));
  session.close();
}

async function stop(model, ids) {
  const session = model.session();
  // Longer than a busy machine lets a cancel wait.
  const long = Array.from({ length: 30 * ids.length }, (_, i) => ids[i % ids.length]);
  const running = session.feed(long);
  await refused('busy', () => session.stats());
  session.cancel();
  const read = await running;
  show('cancelled', `${session.stopped} ${read < long.length}`);
  show('goes on', (await session.feed(ids)) === ids.length);
  const two = (now) => now.tokens < 30;
  show('listener stopped', `${(await session.feed(ids, { progress: two })) < ids.length}`);
  const fail = () => {
    throw new Error('from the listener');
  };
  await refused('thrown', () => session.feed(ids, { progress: fail }));
  session.onCycle(fail);
  await refused('thrown in a cycle', () => session.feed(ids));
  session.onCycle(null);
  const last = session.feed(long);
  session.close();
  show('closed while it reads', `${(await last) < long.length} ${session.stopped}`);
}

async function archive(model, ids) {
  const how = { archive: `${scratch}/book.lccarchive` };
  const session = model.session(how);
  await session.feed(ids);
  show('archived', session.stats().archiveRows > 0);
  await refused('in use', () => model.session(how));
  session.close();
  const other = model.session();
  other.attachArchive(`${scratch}/second.lccarchive`, { dtype: 'int8' });
  await other.feed(ids);
  other.detachArchive();
  show('detached', other.stats().archiveRows);
  other.close();
}

(async () => {
  const text = fs.readFileSync(textFile, 'utf8');
  const how = { engineLibrary, threads: 1 };
  show('version', `${version()} ${formatVersion()}`);
  await refused('missing', () => Model.open(`${scratch}/nothing.lcc`, how));
  const model = await Model.open(folder, how);
  show('policy', model.info().policy);
  show('turn', JSON.stringify(Object.values(model.userTurn())));
  await model.checkGolden();
  show('golden', 'reproduced');
  const ids = model.encode(text);
  show('ids', JSON.stringify([...ids]));
  show('decoded', model.decode(ids) === text);
  show('marked', model.mark('a\u00e9<|im_end|>') === 'a\u00e9\uf8f0<|im_end|>\uf8f1');
  show('zero byte', model.decode(model.encode('a\0b')) === 'a\0b');
  await refused('half of a pair', () => model.encode('\ud83d'));
  await read(model, ids);
  await stream(model, text);
  await write(model, text);
  await stop(model, ids);
  await archive(model, ids);
  model.close();
  await refused('closed model', () => model.info());
})();
