// A session that goes on over another connection, seen from the client: what it keeps, counts, sends again, and tells the game.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { Outbox, connect } from '../../clients/js/gameserver.js';
import { FakeClock, fakeWebSocket, packet, settle, unhex } from './fakes.mjs';

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

/** A notify, push or response, from spaced hex of its head and a text. */
function data(head, body = '') {
  return packet(4, Buffer.concat([unhexed(head), Buffer.from(body)]));
}

function named(flag, route, body) {
  return packet(4, Buffer.concat([Buffer.from([flag, route.length]), Buffer.from(route + body)]));
}

const notify = (route, body) => named(2, route, body);
const push = (route, body) => named(6, route, body);

function answer(resume, session = '7') {
  return { code: 200, sys: { heartbeat: 10, serializer: 'json', gs: { session, resume } }, user: {} };
}

async function connected(options = {}) {
  const opening = connect('ws://game/', { WebSocket: Socket, random: () => 0.5, ...options });
  await settle();
  const [socket] = Socket.made;
  socket.shakeHands(answer({ token: 't1', grace: 60000 }));
  const client = await opening;
  const told = [];
  client.onDrop(({ error, retryIn }) => told.push(`drop ${error.code} ${retryIn}`));
  client.onResume(() => told.push('resume'));
  client.onReconnect(() => told.push('reconnect'));
  return { client, socket, told };
}

/** The next attempt: the socket that it opened, accepted, and what it asked for. */
async function back() {
  await clock.advance(1_000);
  const socket = Socket.made.at(-1);
  socket.accept();
  const hello = JSON.parse(unhexed(socket.sent[0]).subarray(4).toString());
  return { socket, ask: hello.sys.gs.resume };
}

/** What was sent behind handshake and acknowledgement. */
function said(socket) {
  return socket.sent.slice(2);
}

test('what the server has not seen is sent again, in order, before anything new', async () => {
  const { client, socket, told } = await connected();
  const first = client.request('a', 1);
  client.notify('b', 2);
  socket.receive(data('04 01', '"one"'), push('p', '{}'), push('$seen', '1'));
  assert.equal(await first, 'one');
  socket.cut();
  assert.deepEqual([client.state, told], ['waiting', ['drop disconnected 200']]);
  assert.equal(client.notify('c', 3), true);
  const second = client.request('d', 4);
  const { socket: next, ask } = await back();
  assert.deepEqual(ask, { token: 't1', seen: 2 });
  client.notify('e', 5);
  next.receive(packet(1, JSON.stringify(answer({ token: 't2', grace: 60000, seen: 1 }))));
  assert.deepEqual(said(next), [notify('b', '2'), notify('c', '3'), data('00 02 01 64', '4'), notify('e', '5')]);
  await settle();
  assert.deepEqual([client.state, told.slice(1)], ['open', ['resume']]);
  next.receive(data('04 02', '"two"'));
  assert.equal(await second, 'two');
  // The next time with the new token, and with all that was counted.
  next.receive(push('$seen', '5'));
  next.cut();
  const { socket: third, ask: again } = await back();
  assert.deepEqual(again, { token: 't2', seen: 3 });
  third.receive(packet(1, JSON.stringify(answer({ token: 't3', grace: 60000, seen: 5 }))));
  assert.deepEqual(said(third), []);
  client.close();
});

test('what a listener sends before connect has said that it is back is sent, once', async () => {
  const { client, socket } = await connected();
  client.on('p', () => client.notify('b', 1));
  socket.cut();
  const { socket: next } = await back();
  next.receive(packet(1, JSON.stringify(answer({ token: 't2', grace: 60000, seen: 0 }))), push('p', '{}'));
  await settle();
  client.notify('c', 2);
  assert.deepEqual(said(next), [notify('b', '1'), notify('c', '2')]);
  client.close();
});

test('an answer that is lost is asked for with the token before it', async () => {
  const { client, socket } = await connected();
  client.notify('a', 1);
  socket.cut();
  const { socket: second } = await back();
  second.cut();
  const { socket: third, ask } = await back();
  assert.deepEqual(ask, { token: 't1', seen: 0 });
  third.receive(packet(1, JSON.stringify(answer({ token: 't3', grace: 60000, seen: 0 }))));
  assert.deepEqual(said(third), [notify('a', '1')]);
  client.close();
});

test('a session that is over: what was asked fails, what was told is gone, counts begin anew', async () => {
  const { client, socket, told } = await connected();
  socket.receive(push('p', '{}'));
  const lost = assert.rejects(client.request('a'), { code: 'disconnected' });
  socket.cut();
  const waiting = assert.rejects(client.request('b'), { code: 'disconnected' });
  const { socket: next } = await back();
  next.receive(packet(1, JSON.stringify(answer({ token: 'u1', grace: 60000 }, '8'))));
  await Promise.all([lost, waiting]);
  await settle();
  assert.deepEqual([told.at(-1), client.session, said(next)], ['reconnect', '8', []]);
  next.cut();
  const { ask } = await back();
  assert.deepEqual(ask, { token: 'u1', seen: 0 });
  client.close();
});

test('counted are responses, pushes and $error; the server is told in time', async () => {
  const { client, socket } = await connected();
  const got = [];
  client.on('moved', (body) => got.push(body));
  client.on('$error', () => {});
  socket.receive(push('$error', '{"code":"GS-404","msg":""}'), push('$~moved', '{"x":1}'), push('$seen', '0'), data('04 63', '{}'));
  socket.receive('03 00 00 00');
  assert.deepEqual([said(socket).slice(-1), got], [[notify('$seen', '2')], [{ x: 1 }]]);
  socket.receive('03 00 00 00');
  assert.equal(said(socket).filter((sent) => sent.includes('24 73 65 65 6e')).length, 1, 'it knows');
  for (let count = 0; count < 32; count += 1) socket.receive(push('moved', '{}'));
  assert.deepEqual(said(socket).at(-1), notify('$seen', '34'));
  socket.receive(push('moved', `"${'x'.repeat(16 * 1024)}"`));
  assert.deepEqual(said(socket).at(-1), notify('$seen', '35'));
  client.close();
});

test('while the connection is lost, no more is taken than is kept', async () => {
  const { client, socket } = await connected({ outboxBytesMax: 20 });
  socket.cut();
  assert.equal(client.notify('a', 1), true);
  await assert.rejects(client.request('a', 'x'.repeat(20)), { code: 'outbox-full' });
  assert.equal(client.notify('a', 'x'.repeat(20)), false);
  client.close();
});

test('beyond the bound of what is kept it does not go on, but begins anew', async () => {
  const { client, socket, told } = await connected({ outboxBytesMax: 8 });
  client.notify('a', 1);
  client.notify('b', 2);
  client.notify('c', 3);
  socket.cut();
  const { socket: second } = await back();
  second.receive(packet(1, JSON.stringify(answer({ token: 't2', grace: 60000, seen: 0 }))));
  assert.deepEqual([said(second), second.closedWith], [[], 4400]);
  const { socket: third, ask } = await back();
  assert.deepEqual(ask, {});
  third.receive(packet(1, JSON.stringify(answer({ token: 'u1', grace: 60000 }, '8'))));
  await settle();
  assert.deepEqual([told.at(-1), client.state], ['reconnect', 'open']);
  client.close();
});

test('a server that has seen what was never sent, or goes on with what never was, breaks the rules', async () => {
  const { client, socket } = await connected();
  socket.receive(push('$seen', '1'));
  assert.equal(socket.closedWith, 4400);
  const { socket: next, ask } = await back();
  assert.deepEqual(ask, {}, 'such a session does not go on');
  next.receive(packet(1, JSON.stringify(answer({ token: 't2', grace: 60000, seen: 0 }))));
  assert.equal(next.closedWith, 4400);
  client.close();
});

test('a kick ends the session, a restart too', async () => {
  const { client, socket } = await connected();
  const lost = assert.rejects(client.request('a'), { code: 'kicked' });
  socket.receive(packet(5, '{"reason":"shutdown"}'));
  await lost;
  const { ask } = await back();
  assert.deepEqual(ask, {});
  client.close();
});

test('close says goodbye; what is kept goes with it', async () => {
  const { client, socket } = await connected();
  socket.cut();
  const waiting = assert.rejects(client.request('a'), { code: 'closed' });
  client.close();
  await waiting;
  await assert.rejects(client.request('a'), { code: 'closed' });
  assert.equal(client.notify('a'), false);
});

test('resume: false asks for nothing, and a server that offers nothing gets the old ways', async () => {
  const opening = connect('ws://game/', { WebSocket: Socket, random: () => 0.5, resume: false });
  await settle();
  const [socket] = Socket.made;
  socket.accept();
  assert.equal(JSON.parse(unhexed(socket.sent[0]).subarray(4).toString()).sys.gs.resume, undefined);
  socket.receive(packet(1, JSON.stringify(answer(undefined))));
  const client = await opening;
  const lost = assert.rejects(client.request('a'), { code: 'disconnected' });
  socket.cut();
  await lost;
  await assert.rejects(client.request('a'), { code: 'disconnected' });
  assert.equal(client.notify('a'), false);
  client.close();
});

test('an outbox keeps what was not seen, and of that the newest', () => {
  const outbox = new Outbox(3);
  for (const byte of [1, 2, 3, 4]) outbox.keep(Uint8Array.of(byte));
  const kept = () => outbox.messages.map(([byte]) => byte);
  assert.deepEqual(kept(), [2, 3, 4]);
  assert.equal(outbox.handleSeen(0), false);
  assert.equal(outbox.handleSeen(5), false);
  assert.equal(outbox.handleSeen(2), true);
  assert.deepEqual([kept(), outbox.hasRoom(Uint8Array.of(5)), outbox.hasRoom(Uint8Array.of(5, 6))], [[3, 4], true, false]);
  assert.equal(outbox.handleSeen(4), true);
  assert.deepEqual(kept(), []);
});

test('a server that is about to stop is left for another one, when all that was asked is answered', async () => {
  const { client, socket, told } = await connected();
  client.onDrain(({ retryIn }) => told.push(`drain ${retryIn}`));
  const asked = client.request('a', 1);
  socket.receive(push('$reconnect', '{"delay":1.5}'));
  assert.deepEqual(told, ['drain 1500']);
  await clock.advance(1_500);
  assert.equal(client.state, 'open', 'its request is not answered yet');
  socket.receive(data('04 01', '"one"'));
  assert.equal(await asked, 'one');
  await clock.advance(100);
  assert.deepEqual([client.state, socket.closedWith], ['waiting', 1000], 'for good, as far as this server knows');
  const { socket: next, ask } = await back();
  assert.deepEqual(ask, {}, 'as somebody new');
  // One that is about to stop as well says so; the next attempt may reach another.
  next.receive(packet(1, JSON.stringify({ code: 500, sys: {}, user: { code: 'GS-503', msg: 'stopping' } })));
  await settle();
  assert.equal(client.state, 'waiting');
  const { socket: third } = await back();
  third.receive(packet(1, JSON.stringify(answer({ token: 't9', grace: 60000 }, '8'))));
  await settle();
  assert.deepEqual([client.state, told], ['open', ['drain 1500', 'reconnect']]);
});
