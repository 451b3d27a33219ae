// Plays through the game of ../game.py with one of Pomelo's own clients, unmodified as npm serves it.
//
//   node play.cjs browser|node PORT
//
// Ends with status 0 when all that it saw was right; else says what was wrong and ends with 1.
'use strict';

const assert = require('node:assert/strict');
const { isDeepStrictEqual } = require('node:util');

const [which, port] = process.argv.slice(2);
const name = `pomelo ${which}`;
const HEARTBEATS = 5;
const CUT = 'the server cuts the connection, and the client comes back';
let step = 'start';

process.on('uncaughtException', (error) => {
  // Node's client sends its heartbeat by a timer that doesn't ask whether the socket is closing: its defect, not the server's.
  if (which === 'node' && step === CUT && error.message === 'not opened') return;
  wrong(error); // what a handler of the client throws, too
});
process.on('unhandledRejection', (error) => wrong(error));
const deadline = setTimeout(() => wrong(new Error('nothing more came')), 45_000);

function wrong(error) {
  console.error(`${name}: at step "${step}": ${error.stack}`);
  process.exit(1);
}

// The two clients behind one face: `init`, `request`, `notify`, `next` (a push or an event) and `socket`.
const peers = {
  // The client of browsers, in the surroundings that Pomelo's page gives it. Comes back by itself.
  browser() {
    console.log = () => {};
    const { error } = console;
    console.error = (...words) => words[0].startsWith('socket close') || error(...words); // a whole socket, printed
    globalThis.window = globalThis;
    globalThis.WebSocket = require('ws');
    globalThis.EventEmitter = require('component-emitter');
    globalThis.Protocol = require('pomelo-protocol');
    const pomelo = require('pomelo-jsclient-websocket');
    return {
      pomelo,
      init: (ready) => pomelo.init({ host: '127.0.0.1', port, user: {}, reconnect: true }, ready),
      request: (route, body) => new Promise((done) => pomelo.request(route, body, done)),
      again: () => {},
      kicked: (reason) => assert.deepEqual(reason, { reason: 'bye' }),
    };
  },

  // The client of Node. Comes back when told, and counts its requests on.
  node() {
    const Pomelo = require('pomelo-nodejsclient-websocket');
    const quiet = () => {};
    const logger = { debug: quiet, info: quiet, warn: quiet, error: (...words) => wrong(new Error(words.join(' '))) };
    const pomelo = new Pomelo({ logger });
    const init = (ready) => pomelo.init({ host: '127.0.0.1', port, user: {} }, (error, socket) => ready(socket));
    return {
      pomelo,
      init,
      request: (route, body) =>
        new Promise((done) => pomelo.request(route, body, (error, answer) => done(answer))),
      again: (ready) => {
        pomelo.disconnect(); // else its heartbeat's timer goes on
        init(ready);
      },
      kicked: () => {},
    };
  },
};

async function play() {
  const peer = peers[which]();
  const { pomelo, request } = peer;
  const next = (event) => new Promise((done) => pomelo.once(event, done));
  const same = async (body) => assert.deepEqual(await request('room.room.echo', body), body);
  pomelo.on('error', wrong);
  pomelo.on('io-error', wrong);
  let online = false;
  pomelo.on('heartbeat timeout', () => {
    // The browser's client leaves its timer running when it is cut, and goes on coming back all the same.
    if (online) wrong(new Error('the client missed a heartbeat'));
  });

  step = 'connect';
  const readies = [];
  const ready = (socket) => readies.shift()(socket);
  const connected = () => new Promise((done) => readies.push(done));
  let welcome = connected();
  peer.init(ready);
  let socket = await welcome;
  online = true;

  step = 'request and push';
  let push = next('onJoin');
  assert.deepEqual(await request('room.room.join', { room: name, name }), { code: 200, room: name });
  assert.deepEqual(await push, { name });
  await request('room.room.name', { name });

  step = 'notify';
  push = next('onSay');
  pomelo.notify('room.room.say', { room: name, text: 'hi' });
  assert.deepEqual(await push, { text: 'hi' });

  step = 'notifies in order, also to nobody';
  for (let n = 0; n < 100; n++) {
    pomelo.notify('room.room.silent', { n });
    pomelo.notify('room.room.nobody', { n });
  }
  assert.deepEqual((await request('room.room.heard', {})).n, [...Array(100).keys()]);

  step = 'errors';
  const unknown = await request('room.room.nowhere', {});
  assert.equal(unknown.code, 'GS-404');
  assert.equal(typeof unknown.msg, 'string');
  const refused = await request('room.room.refuse', {});
  assert.deepEqual([refused.code, refused.msg], ['GAME-7', 'not today']);

  step = 'a body of nothing';
  push = next('onNull');
  const nothing = [null, {}]; // both are JSON, and neither makes the client throw
  for (const body of [await request('room.room.null', {}), await push])
    assert.ok(nothing.some((one) => isDeepStrictEqual(one, body)), JSON.stringify(body));

  step = 'text of the whole of Unicode';
  await same({ text: 'plain, häßlich, 漢字, 😀 👩‍🚀, \u0000\u007f\u0080\u07ff\u0800\uffff' });

  step = 'bodies around the sizes of buffers';
  for (const size of [0, 1, 1000, 1010, 1024, 2048, 4096, 16384, 50_000]) await same({ text: 'x'.repeat(size) });
  await same({ text: '漢'.repeat(8000) });

  step = 'many requests at once';
  await Promise.all([...Array(1000).keys()].map((n) => same({ n })));

  step = 'silence';
  const heartbeats = (count) =>
    new Promise((done) => {
      socket.addEventListener('message', (event) => {
        if (new Uint8Array(event.data)[0] === 3 && --count === 0) done();
      });
    });
  await heartbeats(HEARTBEATS);
  await same({ text: 'still here' });
  assert.deepEqual(await request('room.room.drops', { name }), { drops: 0 });

  step = CUT;
  const closed = next('close');
  welcome = connected();
  pomelo.notify('room.room.cut', {});
  online = false;
  await closed;
  peer.again(ready);
  socket = await welcome;
  online = true;
  await same({ text: 'back' });
  assert.equal((await request('room.room.join', { room: name, name })).code, 200);

  step = 'kick';
  const kick = next('onKick');
  const end = next('close');
  pomelo.notify('room.room.kick', {});
  peer.kicked(await kick);
  await end;
  clearTimeout(deadline);
}

play().then(() => process.exit(0), wrong);
