// The browser client with a schema: asked for in the handshake, kept, used for requests, answers, notifies and pushes.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { GameServerError, connect } from '../../clients/js/gameserver.js';
import { FakeClock, fakeWebSocket, packet, settle, unhex } from './fakes.mjs';

const SCHEMA = {
  digest: 'd1',
  messages: { Login: [[1, 'name', 'str']], Logged: [[1, 'id', 'u64'], [2, 'seats', 'u32', 'repeated']], Chat: [[1, 'text', 'str']] },
  enums: {},
  routes: { Login: { request: 'Login', response: 'Logged' }, Say: { request: 'Chat' }, count: { response: 'Logged' } },
  pushes: { Chat: 'Chat' },
};

/** @type {FakeClock} */
let clock;
/** @type {ReturnType<typeof fakeWebSocket>} */
let Socket;
/** Each test has a server of its own: what is kept is kept by server. */
let host = 0;

beforeEach(() => {
  clock = new FakeClock().install();
  Socket = fakeWebSocket();
  host += 1;
});
afterEach(() => {
  clock.uninstall();
  delete globalThis.localStorage;
});

/** A response or push, from spaced hex of its head and body. */
function data(bytes) {
  return packet(4, Buffer.from(unhex(bytes)));
}

function asked(socket) {
  return JSON.parse(Buffer.from(unhex(socket.sent[0])).subarray(4).toString()).sys.gs;
}

function answer(gs, serializer = 'protobuf') {
  return { code: 200, sys: { heartbeat: 10, dict: {}, serializer, gs }, user: {} };
}

async function connected(handshake = answer({ schema: SCHEMA }), options = {}, path = '/') {
  const opening = connect(`ws://game${host}${path}`, { WebSocket: Socket, random: () => 0.5, ...options });
  await settle();
  Socket.made.at(-1).shakeHands(handshake);
  return [await opening, Socket.made.at(-1)];
}

/** What a page's storage does, and `kept` to look into it. */
function storage(kept = new Map()) {
  globalThis.localStorage = { kept, getItem: (key) => kept.get(key) ?? null, setItem: (key, text) => void kept.set(key, text) };
  return kept;
}

test('a request is its message, and so is the answer', async () => {
  const [client, socket] = await connected();
  assert.deepEqual(asked(socket), { serializer: 'protobuf', schema: '', resume: {} });
  assert.equal(client.schema?.digest, 'd1');
  const login = client.request('Login', { name: 'Ann' });
  const nothing = client.request('Login');
  assert.deepEqual(socket.sent.slice(2), [data('00 01 05 4c 6f 67 69 6e 0a 03 41 6e 6e'), data('00 02 05 4c 6f 67 69 6e')]);
  socket.receive(data('04 01 08 ff ff ff ff ff ff ff ff ff 01 12 02 01 02'), data('04 02'));
  assert.deepEqual(await login, { id: 2n ** 64n - 1n, seats: [1, 2] });
  assert.deepEqual(await nothing, { id: 0n, seats: [] });
});

test('a route in a room is the route', async () => {
  const [client, socket] = await connected();
  const login = client.request('Login@17', { name: 'Ann' });
  assert.deepEqual(socket.sent.slice(2), [data('00 01 08 4c 6f 67 69 6e 40 31 37 0a 03 41 6e 6e')]);
  socket.receive(data('04 01 08 05'));
  assert.deepEqual(await login, { id: 5n, seats: [] });
  const seen = [];
  client.on('Chat@17', (message) => seen.push(message));
  socket.receive(data('06 07 43 68 61 74 40 31 37 0a 01 78'));
  assert.deepEqual(seen, [{ text: 'x' }]);
});

test('bytes go as they are, unknown routes are JSON, and half a route is half of each', async () => {
  const [client, socket] = await connected();
  const raw = client.request('Login', unhex('0a 00'));
  const json = client.request('other', { name: 'Ann', big: 5n });
  const count = client.request('count', { json: 1 });
  const say = client.request('Say', { text: 'x' });
  assert.deepEqual(socket.sent.slice(2), [
    data('00 01 05 4c 6f 67 69 6e 0a 00'),
    packet(4, Buffer.from('\x00\x02\x05other{"name":"Ann","big":"5"}')),
    packet(4, Buffer.from('\x00\x03\x05count{"json":1}')),
    data('00 04 03 53 61 79 0a 01 78'),
  ]);
  socket.receive(data('04 01 08 01'), packet(4, Buffer.from('\x04\x02{"ok":1}')), data('04 03 08 01'), data('04 04'));
  assert.deepEqual([await raw, await json, await count, await say], [unhex('08 01'), { ok: 1 }, { id: 1n, seats: [] }, null]);
});

test('a body that does not fit is not sent', async () => {
  const [client, socket] = await connected();
  await assert.rejects(client.request('Login', { name: 5 }), { name: 'TypeError', message: 'Login.name: 5 is no str' });
  assert.throws(() => client.notify('Say', 'x'), { name: 'TypeError', message: 'Chat: "x" is no Chat' });
  assert.equal(socket.sent.length, 2);
  assert.equal(client.notify('Say', { text: 'x' }), true);
  assert.deepEqual(socket.sent.slice(2), [data('02 03 53 61 79 0a 01 78')]);
});

test('an answer or a push that is not its message is bad-body, or reported; the connection stays', async (context) => {
  const shown = context.mock.method(console, 'error', () => {});
  const [client, socket] = await connected();
  const seen = [];
  client.on('Chat', (message) => seen.push(message));
  client.on('Chat', (message) => seen.push(message), { raw: true });
  const bad = assert.rejects(client.request('Login', { name: 'Ann' }), (error) => {
    assert.ok(error instanceof GameServerError);
    assert.match(error.message, /^bad-body: the answer is .*raw: true/);
    return true;
  });
  socket.receive(data('04 01 08'), data('06 04 43 68 61 74 0a'), data('06 04 43 68 61 74 0a 02 68 69'), data('06 04 6e 6f 6e 65'));
  await bad;
  assert.deepEqual(seen, [unhex('0a'), { text: 'hi' }, unhex('0a 02 68 69')]);
  assert.equal(shown.mock.callCount(), 1);
  assert.equal(client.state, 'open');
});

test('an error answer is read, and so is the push of a refused notify', async (context) => {
  const warned = context.mock.method(console, 'warn', () => {});
  const [client, socket] = await connected();
  const refused = assert.rejects(client.request('Login'), { code: 'x', msg: 'no', metadata: { __proto__: Object.prototype, k: 'v' } });
  socket.receive(data('24 01 0a 01 78 12 02 6e 6f 1a 06 0a 01 6b 12 01 76'));
  await refused;
  const push = '06 06 24 65 72 72 6f 72 0a 06 47 53 2d 34 30 30 12 06 4d 6f 76 65 2e 78';
  socket.receive(data(push));
  assert.deepEqual(warned.mock.calls.map((call) => call.arguments), [['gameserver: a notify was refused: GS-400: Move.x']]);
  const seen = [];
  client.on('$error', (error) => seen.push(error));
  socket.receive(data(push), packet(4, Buffer.from('\x06\x06$error{"code":"GS-404","msg":"no such route"}')));
  assert.ok(seen.every((error) => error instanceof GameServerError));
  assert.deepEqual(seen.map(({ code, msg }) => [code, msg]), [['GS-400', 'Move.x'], ['GS-404', 'no such route']]);
  assert.equal(warned.mock.callCount(), 1);
});

test('a push without a body and without a message is an empty object', async () => {
  const [client, socket] = await connected();
  const seen = [];
  client.on('began', (body) => seen.push(body));
  socket.receive(data('06 05 62 65 67 61 6e'));
  assert.deepEqual(seen, [{}]);
});

test('the schema is kept for the next connection, and replaced when the server has another', async () => {
  const kept = storage();
  const [client, socket] = await connected(undefined, {}, '/play?token=secret');
  assert.deepEqual([...kept.keys()], [`gameserver.schema game${host}/play`]);
  assert.deepEqual(JSON.parse([...kept.values()][0]), SCHEMA);
  socket.cut();
  await clock.advance(10_000);
  const again = Socket.made.at(-1);
  again.shakeHands(answer({ digest: 'd1' }));
  await settle();
  assert.deepEqual(asked(again), { serializer: 'protobuf', schema: 'd1', resume: {} });
  assert.equal(client.state, 'open');
  client.notify('Say', { text: 'x' });
  assert.equal(again.sent.at(-1), data('02 03 53 61 79 0a 01 78'));
  again.cut();
  await clock.advance(10_000);
  Socket.made.at(-1).shakeHands(answer({ schema: { ...SCHEMA, digest: 'd2', messages: { ...SCHEMA.messages, Chat: [[2, 'text', 'str']] } } }));
  await settle();
  client.notify('Say', { text: 'x' });
  assert.equal(Socket.made.at(-1).sent.at(-1), data('02 03 53 61 79 12 01 78'));
  assert.equal(JSON.parse([...kept.values()][0]).digest, 'd2');
  const other = await connected(undefined, {}, '/other');
  assert.equal(asked(other[1]).schema, '');
});

test('a page that comes back uses what is in storage', async () => {
  storage(new Map([[`gameserver.schema game${host}/`, JSON.stringify(SCHEMA)]]));
  const [client, socket] = await connected(answer({ digest: 'd1' }));
  assert.equal(asked(socket).schema, 'd1');
  assert.equal(client.schema?.digest, 'd1');
});

test('storage that is broken, full or forbidden is done without', async () => {
  for (const text of ['{', '[]', JSON.stringify({ ...SCHEMA, messages: 5 })]) {
    host += 1000;
    storage(new Map([[`gameserver.schema game${host}/`, text]]));
    const [client, socket] = await connected();
    assert.equal(asked(socket).schema, '');
    assert.equal(client.schema?.digest, 'd1');
  }
  host += 1000;
  const forbidden = () => {
    throw new Error('SecurityError');
  };
  Object.defineProperty(globalThis, 'localStorage', { get: forbidden, configurable: true });
  const [client] = await connected();
  assert.equal(client.schema?.digest, 'd1');
  delete globalThis.localStorage;
  globalThis.localStorage = { getItem: () => null, setItem: forbidden };
  const [again, socket] = await connected(answer({ digest: 'd1' })); // from memory
  assert.equal(asked(socket).schema, 'd1');
  assert.equal(again.schema?.digest, 'd1');
});

test('a schema that is none, or a digest that was not asked for, breaks the rules of the wire', async () => {
  for (const gs of [{ schema: 'd1' }, { schema: { ...SCHEMA, pushes: { Chat: 'Nobody' } } }, { digest: 'd1' }, { digest: 5 }]) {
    await assert.rejects(connected(answer(gs)), { code: 'protocol' });
  }
});

test('a server without messages, or one that speaks JSON: all bodies are JSON', async () => {
  for (const handshake of [answer({}), answer({ schema: SCHEMA }, 'json')]) {
    const [client, socket] = await connected(handshake);
    assert.equal(client.schema, null);
    client.notify('Say', { text: 'x' });
    assert.equal(socket.sent.at(-1), packet(4, Buffer.from('\x02\x03Say{"text":"x"}')));
  }
});

test('JSON by choice asks for no schema', async () => {
  const [client, socket] = await connected(answer({}, 'json'), { serializer: 'json' });
  assert.deepEqual(asked(socket), { serializer: 'json', resume: {} });
  assert.equal(client.schema, null);
});
