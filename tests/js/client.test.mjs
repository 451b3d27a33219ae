// The browser client over a WebSocket without a network and a clock that stands still.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { deflateSync } from 'node:zlib';

import { Client, GameServerError, connect, inflate } from '../../clients/js/gameserver.js';
import { FakeClock, fakeWebSocket, packet, settle, unhex } from './fakes.mjs';

const HEARTBEAT = '03 00 00 00';
const ACK = '02 00 00 00';
/** Request id=1 "a" {}, as it leaves. */
const REQUEST_A = packet(4, unhexed('00 01 01 61 7b 7d'));

/** @type {FakeClock} */
let clock;
/** @type {ReturnType<typeof fakeWebSocket>} */
let Socket;

beforeEach(() => {
  clock = new FakeClock().install();
  Socket = fakeWebSocket();
});
afterEach(() => clock.uninstall());

function unhexed(text) {
  return Buffer.from(unhex(text));
}

/** A response or push, from spaced hex of its head and a text. */
function data(head, body = '') {
  return packet(4, Buffer.concat([unhexed(head), Buffer.from(body)]));
}

async function connected(options = {}) {
  const opening = connect('ws://game/', { WebSocket: Socket, random: () => 0.5, ...options });
  await settle();
  Socket.made.at(-1).shakeHands();
  return [await opening, Socket.made.at(-1)];
}

function sockets() {
  return Socket.made.length;
}

test('shakes hands: says who it is, acknowledges, keeps what the server told', async () => {
  const opening = connect('http://game:7777/play#x', { WebSocket: Socket, user: { name: 'Ann' } });
  await settle();
  const [socket] = Socket.made;
  assert.equal(socket.url, 'ws://game:7777/play');
  assert.equal(socket.binaryType, 'arraybuffer');
  socket.accept();
  const hello = JSON.parse(unhexed(socket.sent[0]).subarray(4).toString());
  assert.equal(hello.sys.type, 'gameserver-js');
  assert.deepEqual([hello.sys.gs, hello.user], [{ serializer: 'protobuf', schema: '', resume: {} }, { name: 'Ann' }]);
  socket.receive(packet(1, JSON.stringify({ code: 200, sys: { heartbeat: 10, gs: { session: '9223372036854775807' } }, user: { x: 1 } })));
  const client = await opening;
  assert.deepEqual(socket.sent.slice(1), [ACK]);
  assert.equal(client.state, 'open');
  assert.equal(client.session, '9223372036854775807');
  assert.deepEqual(client.handshake?.user, { x: 1 });
  assert.ok(client instanceof Client);
  client.close();
});

test('a request is answered by its id, in any order, and fails with the error of the server', async () => {
  const [client, socket] = await connected();
  const first = client.request('a');
  const second = client.request('room.join', { seat: 2 });
  const third = client.request('raw', unhex('ff 00'));
  assert.deepEqual(socket.sent.slice(2), [
    REQUEST_A,
    data('00 02 09 72 6f 6f 6d 2e 6a 6f 69 6e', '{"seat":2}'),
    data('00 03 03 72 61 77 ff 00'),
  ]);
  socket.receive(data('24 02', '{"code":"room-full","msg":"no seat","metadata":{"seats":"4"}}'), data('04 03 fe'), data('04 01', '{"ok":1}'));
  await assert.rejects(second, (error) => {
    assert.ok(error instanceof GameServerError);
    assert.deepEqual([error.code, error.msg, error.metadata], ['room-full', 'no seat', { seats: '4' }]);
    return true;
  });
  assert.deepEqual(await third, unhex('fe'));
  assert.deepEqual(await first, { ok: 1 });
  socket.receive(data('04 01', '{}'), data('04 63', '{}')); // answered twice, never asked: ignored
  assert.equal(client.state, 'open');
});

test('a request times out, and its late answer is ignored', async () => {
  const [client, socket] = await connected();
  const late = assert.rejects(client.request('a', {}, { timeout: 500 }), { code: 'timeout' });
  await clock.advance(500);
  await late;
  socket.receive(data('04 01', '1'));
  assert.equal(client.state, 'open');
});

test('an answer that is no JSON rejects, raw gives its bytes, an empty one is null', async () => {
  const [client, socket] = await connected();
  const bad = assert.rejects(client.request('a'), { code: 'bad-body' });
  const raw = client.request('a', {}, { raw: true });
  const empty = client.request('a');
  socket.receive(data('04 01', '{'), data('04 02', '{'), data('04 03'));
  await bad;
  assert.deepEqual(await raw, unhex('7b'));
  assert.equal(await empty, null);
});

test('pushes reach their listeners; one that throws, or a body that is no JSON, harms nobody', async (context) => {
  const shown = context.mock.method(console, 'error', () => {});
  const [client, socket] = await connected();
  const seen = [];
  client.on('onMove', () => {
    throw new Error('a mistake in the game');
  });
  const stop = client.on('onMove', (body, route) => seen.push([route, body]));
  client.on('onMove', (body) => seen.push(body.length), { raw: true });
  socket.receive('04 00 00 0f 06 06 6f 6e 4d 6f 76 65 7b 22 78 22 3a 31 7d');
  assert.deepEqual(seen, [['onMove', { x: 1 }], 7]);
  assert.equal(shown.mock.callCount(), 1);
  socket.receive(data('06 06 6f 6e 4d 6f 76 65', '{'));
  assert.deepEqual(seen.slice(2), [1]);
  stop();
  client.off('onMove');
  socket.receive(data('06 06 6f 6e 4d 6f 76 65', '{}'), data('06 01 61', '{}'));
  assert.equal(seen.length, 3);
  assert.equal(client.state, 'open');
});

test('a dictionary is used both ways', async () => {
  const opening = connect('ws://game/', { WebSocket: Socket });
  await settle();
  const [socket] = Socket.made;
  socket.shakeHands({ code: 200, sys: { heartbeat: 10, dict: { move: 7 } }, user: {} });
  const client = await opening;
  client.notify('move', { x: 1 });
  client.notify('walk', unhex(''));
  assert.deepEqual(socket.sent.slice(2), [data('03 00 07', '{"x":1}'), data('02 04 77 61 6c 6b')]);
  const seen = [];
  client.on('move', (body) => seen.push(body));
  socket.receive(data('07 00 07', '5'));
  assert.deepEqual(seen, [5]);
});

test('compressed bodies are inflated, and what follows waits for them', async () => {
  const [client, socket] = await connected();
  const seen = [];
  client.on('a', (body) => seen.push(body));
  const packed = (body) => packet(4, Buffer.concat([unhexed('16 01 61'), deflateSync(body)]));
  socket.receive(data('06 01 61', '1'), packed('2'), data('06 01 61', '3'), packed('4'), data('06 01 61', '5'));
  while (seen.length < 5) await settle();
  socket.receive(data('06 01 61', '6'));
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6]);
});

test('heartbeats: answered at once, sent on a timer of its own where nothing else is', async () => {
  const [client, socket] = await connected();
  socket.receive(HEARTBEAT);
  assert.deepEqual(socket.sent.slice(1), [ACK, HEARTBEAT]);
  for (let round = 0; round < 6; round++) {
    await clock.advance(5000);
    socket.receive(data('06 01 61', '1')); // pushes, but no heartbeat to answer
  }
  assert.deepEqual(socket.sent.slice(3), [HEARTBEAT, HEARTBEAT, HEARTBEAT]);
  assert.equal(client.state, 'open');
});

test('a silent server is found dead and connected to again', async () => {
  const [client, socket] = await connected();
  const lost = [];
  client.onDisconnect(({ error, retryIn }) => lost.push([error.code, retryIn]));
  await clock.advance(24_999);
  assert.equal(client.state, 'open');
  await clock.advance(5_000);
  assert.deepEqual(lost, [['disconnected', 200]]);
  assert.equal(socket.closedWith, 4408);
  assert.equal(sockets(), 2);
});

test('silence is not judged over a time in which the machine slept', async () => {
  const [client, socket] = await connected();
  clock.sleep(3_600_000);
  await clock.advance(0);
  assert.equal(client.state, 'open');
  socket.receive(HEARTBEAT); // it was waiting in the socket
  await clock.advance(20_000);
  assert.equal(client.state, 'open');
  clock.sleep(3_600_000);
  await clock.advance(2_500);
  assert.equal(client.state, 'waiting'); // nothing was: the connection did not survive
});

test('reconnects with exponential backoff and full jitter, until it is there again', async () => {
  const draws = [];
  const random = () => (draws.push(1), 0.5);
  const [client, socket] = await connected({ random, reconnect: { delay: 100, delayMax: 1000 } });
  const waits = [];
  let back = 0;
  client.onDisconnect(({ retryIn }) => waits.push(retryIn));
  client.onReconnect(() => back++);
  const flight = assert.rejects(client.request('a'), { code: 'disconnected' });
  socket.cut();
  await flight;
  await assert.rejects(client.request('a'), { code: 'disconnected' });
  assert.equal(client.notify('a'), false);
  for (let attempt = 0; attempt < 6; attempt++) {
    await clock.advance(waits.at(-1));
    Socket.made.at(-1).cut();
    await settle();
  }
  assert.deepEqual(waits, [50, 100, 200, 400, 500, 500, 500]);
  assert.equal(draws.length, 7);
  assert.equal(back, 0);
  await clock.advance(500);
  Socket.made.at(-1).shakeHands();
  await settle();
  assert.equal(back, 1);
  const answer = client.request('a');
  Socket.made.at(-1).receive(data('04 02', '1'));
  assert.equal(await answer, 1);
  Socket.made.at(-1).cut();
  assert.equal(waits.at(-1), 50); // from the start again
});

test('a fresh token for each connection; one that can not be had counts as an attempt', async () => {
  let asked = 0;
  const user = async () => {
    if (++asked === 2) throw new Error('the login server is down');
    return { token: asked };
  };
  const [client, socket] = await connected({ user });
  assert.equal(asked, 1);
  socket.cut();
  await clock.advance(200);
  assert.deepEqual([asked, sockets(), client.state], [2, 1, 'waiting']);
  await clock.advance(400);
  Socket.made.at(-1).shakeHands();
  await settle();
  assert.deepEqual([asked, sockets(), client.state], [3, 2, 'open']);
});

test('a token that never comes times out, and what it took is taken from the time for the handshake', async () => {
  let fetched;
  const user = () => new Promise((resolve) => (fetched = resolve));
  const never = assert.rejects(connect('ws://game/', { WebSocket: Socket, timeout: 3000, user }), {
    code: 'timeout',
    msg: 'no answer from user() within 3000 ms',
  });
  await clock.advance(3000);
  await never;
  assert.equal(sockets(), 0);
  fetched({ token: 1 }); // too late, and nobody minds
  await settle();
  assert.equal(sockets(), 0);

  const late = assert.rejects(connect('ws://game/', { WebSocket: Socket, timeout: 3000, user }), { code: 'timeout' });
  await clock.advance(2000);
  fetched({ token: 1 });
  await settle();
  Socket.made[0].accept();
  await clock.advance(1000);
  await late;
});

test('a token that never comes at a reconnect is an attempt like others', async () => {
  let asked = 0;
  const user = () => (++asked === 2 ? new Promise(() => {}) : { token: asked });
  const [client, socket] = await connected({ user, timeout: 3000 });
  socket.cut();
  await clock.advance(200);
  assert.deepEqual([asked, client.state], [2, 'connecting']);
  await clock.advance(3000 + 400);
  Socket.made.at(-1).shakeHands();
  await settle();
  assert.deepEqual([asked, sockets(), client.state], [3, 2, 'open']);
});

test('a handshake that never comes times out', async () => {
  const opening = assert.rejects(connect('ws://game/', { WebSocket: Socket, timeout: 3000 }), { code: 'timeout' });
  await settle();
  Socket.made[0].accept();
  await clock.advance(3000);
  await opening;
  assert.equal(sockets(), 1);
});

test('nobody there, and an address that the page may not use', async () => {
  const opening = assert.rejects(connect('ws://game/', { WebSocket: Socket }), { code: 'unreachable' });
  await settle();
  Socket.made[0].cut();
  await opening;
  await assert.rejects(connect('ws://forbidden/', { WebSocket: Socket }), { code: 'unreachable' });
  await assert.rejects(connect(undefined, { WebSocket: Socket }), { code: 'unreachable' });
});

test('a refusal carries the code of the game, and is not tried again', async () => {
  const opening = assert.rejects(connect('ws://game/', { WebSocket: Socket }), { code: 'bad-token', msg: 'log in again' });
  await settle();
  Socket.made[0].shakeHands({ code: 400, sys: {}, user: { code: 'bad-token', msg: 'log in again' } });
  await opening;

  const [client, socket] = await connected();
  const ends = [];
  client.onDisconnect(({ error, retryIn }) => ends.push([error.code, retryIn]));
  socket.cut();
  await clock.advance(200);
  Socket.made.at(-1).shakeHands({ code: 500, sys: {}, user: {} });
  await settle();
  assert.deepEqual(ends, [['disconnected', 200], ['refused', null]]);
  assert.equal(client.state, 'closed');
});

test('a kick ends it', async () => {
  const [client, socket] = await connected();
  const seen = [];
  client.onKick((reason) => seen.push(reason));
  client.onDisconnect(({ error, retryIn }) => seen.push([error.code, error.msg, retryIn]));
  const flight = assert.rejects(client.request('a'), { code: 'kicked' });
  socket.receive('05 00 00 11 7b 22 72 65 61 73 6f 6e 22 3a 22 6b 69 63 6b 22 7d');
  await flight;
  assert.deepEqual(seen, ['kick', ['kicked', 'kick', null]]);
  assert.equal(client.state, 'closed');
  await clock.advance(60_000);
  assert.equal(sockets(), 1);
  await assert.rejects(client.request('a'), { code: 'closed' });
});

test('a kick by a server that restarts is followed by a reconnect', async () => {
  const [client, socket] = await connected();
  socket.receive(packet(5, '{"reason":"shutdown"}'));
  assert.equal(client.state, 'waiting');
  await clock.advance(200);
  Socket.made.at(-1).shakeHands();
  await settle();
  assert.equal(client.state, 'open');
});

test('close: nothing is sent, heard or tried any more', async () => {
  const [client, socket] = await connected();
  const flight = assert.rejects(client.request('a'), { code: 'closed' });
  client.close();
  client.close();
  await flight;
  assert.equal(socket.closedWith, 1000);
  assert.equal(client.notify('a'), false);
  await clock.advance(60_000);
  assert.equal(sockets(), 1);
  assert.equal(clock.timers.size, 0);

  const [waiting, cut] = await connected();
  cut.cut();
  waiting.close();
  await clock.advance(60_000);
  assert.deepEqual([sockets(), clock.timers.size], [2, 0]);
});

test('retryNow does not wait; reconnect: false does not try; attempts are bounded', async () => {
  const [client, socket] = await connected();
  client.retryNow();
  socket.cut();
  client.retryNow();
  await settle();
  client.retryNow();
  await clock.advance(1000);
  assert.equal(sockets(), 2);
  client.close();

  const [once, one] = await connected({ reconnect: false });
  one.cut();
  assert.equal(once.state, 'closed');

  const [twice, two] = await connected({ reconnect: { attempts: 1 } });
  two.cut();
  await clock.advance(200);
  Socket.made.at(-1).cut();
  await settle();
  assert.equal(twice.state, 'closed');
});

const hostile = {
  'a text frame': ['hello'],
  'an unknown packet type': [unhex('06 00 00 00').buffer],
  'a second handshake': [packet(1, '{"code":200}')],
  'an acknowledgement': [ACK],
  'an empty message': [packet(4, '')],
  'message type 4': [data('08 00')],
  'a route that runs over': [data('06 ff 61')],
  'a code of no dictionary': [data('07 00 01')],
  'a body that does not inflate': [data('16 01 61 00')],
  'a body that inflates without end': [packet(4, Buffer.concat([unhexed('16 01 61'), deflateSync(Buffer.alloc(1 << 20))]))],
  'a packet above the cap': [unhex('04 ff ff ff').buffer],
};

for (const [what, pieces] of Object.entries(hostile)) {
  test(`hostile server: ${what} closes the connection, and nothing is thrown`, { timeout: 20_000 }, async () => {
    const [client, socket] = await connected({ bodyBytesMax: 1000 });
    const ends = [];
    client.onDisconnect(({ error }) => ends.push(error.code));
    for (const piece of pieces) socket.onmessage({ data: piece === 'hello' ? piece : asBuffer(piece) });
    while (!ends.length) await settle(); // inflating takes turns on threads of its own
    assert.deepEqual(ends, ['protocol']);
    assert.equal(socket.closedWith, 4400);
    assert.equal(client.state, 'waiting');
  });
}

function asBuffer(piece) {
  return typeof piece === 'string' ? unhex(piece).buffer : piece;
}

for (const [what, bytes] of Object.entries({
  'a heartbeat first': HEARTBEAT,
  'data first': data('06 01 61'),
  'no JSON': packet(1, '{'),
  'no code': packet(1, '{}'),
})) {
  test(`hostile server: in place of its handshake, ${what}`, async () => {
    const opening = assert.rejects(connect('ws://game/', { WebSocket: Socket }), { code: 'protocol' });
    await settle();
    Socket.made[0].accept();
    Socket.made[0].receive(bytes);
    await opening;
  });
}

/** Packets in one frame. */
function frame(...packets) {
  return packets.join(' ');
}

for (const [what, extra, code] of [
  ['an unknown packet', '06 00 00 00', 'protocol'],
  ['a kick', packet(5, '{"reason":"banned"}'), 'kicked'],
  ['a shutdown', packet(5, '{"reason":"shutdown"}'), 'kicked'],
]) {
  test(`a handshake and ${what} in one frame: no open client on a dead socket`, async () => {
    const welcome = packet(1, '{"code":200,"sys":{"heartbeat":10},"user":{}}');
    const opening = assert.rejects(connect('ws://game/', { WebSocket: Socket }), { code });
    await settle();
    Socket.made[0].accept();
    Socket.made[0].receive(frame(welcome, extra));
    await opening;
    assert.equal(clock.timers.size, 0);

    const [client, socket] = await connected();
    socket.cut();
    await clock.advance(200);
    Socket.made.at(-1).accept();
    Socket.made.at(-1).receive(frame(welcome, extra));
    await settle();
    assert.equal(client.state, extra.includes('62 61 6e') ? 'closed' : 'waiting');
  });
}

test('what is still being inflated when the client closes is not heard', async () => {
  const [client, socket] = await connected();
  const seen = [];
  client.on('a', (body) => seen.push(body));
  socket.receive(packet(4, Buffer.concat([unhexed('16 01 61'), deflateSync('1')])));
  client.close();
  for (let later = 0; later < 3; later++) await inflate(deflateSync('2'), 100); // begun after it, so done after it
  await settle();
  assert.deepEqual(seen, []);
});

test('a notify into a socket that closes says that it was not sent', async () => {
  const [client, socket] = await connected();
  socket.readyState = 2; // closing; its event comes later
  assert.equal(client.notify('a'), false);
  await assert.rejects(async () => client.notify('a', () => {}), TypeError);
});

test('a socket that fails without a close event is an attempt that failed', async () => {
  const opening = assert.rejects(connect('ws://game/', { WebSocket: Socket }), { code: 'unreachable', msg: 'the socket failed' });
  await settle();
  Socket.made[0].onerror({});
  await clock.advance(0);
  await opening;
  assert.equal(clock.timers.size, 0);
});
