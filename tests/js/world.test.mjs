// The world in the browser: the bytes of docs/wire.md, what the game is told, and what is drawn between two snapshots.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';

import { ProtocolError, connect } from '../../clients/js/gameserver.js';
import { Meter } from '../../clients/js/gameserver-netgraph.js';
import { Timeline, World } from '../../clients/js/gameserver-world.js';
import { FakeClock, fakeWebSocket, packet, settle, unhex } from './fakes.mjs';

const SHAPE = {
  cell: 100,
  tick_rate: 20,
  tables: [
    {
      name: 'Player',
      position: ['x', 'y'],
      columns: [
        { name: 'x', type: 'f32', quantize: 0.01, interpolate: true },
        { name: 'y', type: 'f32', quantize: 0.01, interpolate: true },
        { name: 'hp', type: 'u16' },
        { name: 'gold', type: 'u16', to: 'owner' },
      ],
    },
  ],
};
const TICK = 50;
/** Of docs/wire.md. */
const FIRST = '13  07 01 00 00 00 0e  0e 00 01 00 00 ac 02 31 c8 01';
const SECOND = '14  0c 01 03 0a 02';
const ID = 1n;

/** @param {object} [shape] */
function begun(shape = SHAPE) {
  const world = new World();
  world._begin(shape, false);
  return world;
}

/** @param {World} world @param {string} hex @param {number} [now] */
function apply(world, hex, now = 0) {
  return world._apply(unhex(hex), now);
}

/** A world that tells what it tells. */
function told(world, table = 'Player') {
  const story = [];
  world.onAdd(table, (entity) => story.push(`+${entity.id}`));
  world.onChange(table, (entity) => story.push(`~${entity.id}`));
  world.onRemove(table, (entity) => story.push(`-${entity.id}`));
  return story;
}

test('the snapshots of docs/wire.md', () => {
  const world = begun();
  const story = told(world);
  assert.equal(apply(world, FIRST), true);
  assert.deepEqual([...world.entities.Player.values()], [{ id: ID, x: 1.5, y: -0.25, hp: 100, gold: 7 }]);
  assert.equal(world.mine('Player'), world.entities.Player.get(ID));
  apply(world, SECOND);
  assert.deepEqual({ ...world.mine('Player') }, { id: ID, x: 1.55, y: -0.24, hp: 100, gold: 7 });
  assert.deepEqual([world.tick, world.tickRate, world.cell, story], [10, 20, 100, ['+1', '~1']]);
  assert.equal(apply(world, SECOND), false, 'a second time');
  const bytes = Object.fromEntries(world.bytes);
  assert.deepEqual(bytes, { '': 6, Player: 10 + 5 });
});

test('an entity that changes its block was in view all along; one that is forgotten is removed', () => {
  const world = begun();
  const story = told(world);
  apply(world, FIRST);
  const entity = world.mine('Player');
  apply(world, '14  0d 01 00 00 00  12 00 01 00 00 ac 02 31 c8 01'); // leaves block 3, enters block 4
  assert.equal(world.entities.Player.get(ID), entity);
  apply(world, '16  03 03'); // block 3 is forgotten, which has it no more
  assert.equal(world.entities.Player.size, 1);
  apply(world, '18  03 04');
  assert.equal(world.entities.Player.size, 0);
  assert.equal(world.mine('Player'), entity, 'its owner still has it');
  assert.deepEqual(story, ['+1', '~1', '-1']);
  apply(world, '1a  0b 01 00 00 01 12'); // it has gold
  assert.equal(entity.gold, 9);
  assert.deepEqual(story.slice(3), ['~1']);
});

test('a snapshot that begins anew tells of what is different, and of nothing else', () => {
  const world = begun();
  apply(world, FIRST);
  const entity = world.mine('Player');
  const story = told(world);
  story.length = 0;
  world._begin(structuredClone(SHAPE), true);
  apply(world, '09  07 01 00 00 00 0e  0e 00 02 00 00 ac 02 31 c8 01 01 02 00 00 00'); // an earlier tick: the server counts anew
  assert.equal(world.mine('Player'), entity);
  assert.deepEqual(story, ['~1', `+${(2n << 32n) + 2n}`]);
  world._begin(SHAPE, false); // another session
  assert.deepEqual(story.slice(2).sort(), ['-1', `-${(2n << 32n) + 2n}`]);
  assert.equal(world.mine('Player'), null);
});

test('an index with another generation is another entity', () => {
  const world = begun();
  apply(world, FIRST);
  const story = told(world);
  apply(world, '14  0e 00 01 00 01 00 00 00');
  assert.deepEqual(story, ['+1', '-1', `+${(1n << 32n) + 1n}`]);
});

test('who listens late is told of those in view; whoever ends it is told nothing; what a listener throws harms nobody', () => {
  const world = begun();
  apply(world, FIRST);
  const seen = [];
  const end = world.onChange('Player', () => seen.push('ended'));
  end();
  const errors = [];
  globalThis.reportError = (error) => errors.push(error.message);
  world.onAdd('Player', () => {
    throw new Error('of the game');
  });
  world.onChange('Player', () => {
    throw new Error('of the game, again');
  });
  world.onChange('Player', (player) => seen.push(player.x));
  apply(world, SECOND);
  delete globalThis.reportError;
  assert.deepEqual(seen, [1.55]);
  assert.deepEqual(errors, ['of the game', 'of the game, again']);
});

test('all kinds of columns', () => {
  const columns = [
    { name: 'long', type: 'i64' },
    { name: 'code', type: 'u64' },
    { name: 'is_on', type: 'bool' },
    { name: 'mood', type: 'enum', values: [-1, 5], names: ['SAD', 'GLAD'] },
    { name: 'at', type: 'vector', of: 'f32', length: 2, quantize: 0.5 },
    { name: 'aim', type: 'vector', of: 'f32', length: 3 },
    { name: 'name', type: 'str', length: 9 },
    { name: 'raw', type: 'bytes', length: 2 },
    { name: 'items', type: 'list', of: 'u64', length: 3 },
    { name: 'target', type: 'entity', of: 'Thing' },
    { name: 'exact', type: 'f64' },
  ];
  const world = begun({ cell: 1, tick_rate: 20, tables: [{ name: 'Thing', columns }] });
  const least = 'ff ff ff ff ff ff ff ff ff 01';
  const values = `${least} 01 01 0a 03 04  00 00 80 3f 00 00 00 c0 00 00 00 00  04 c3 84 ff 41 02 00 ff 02 01 02 03 01 00 00 00 00 00 00 f0 3f`;
  assert.throws(() => apply(begun({ ...SHAPE, tables: [{ name: 'Thing', columns }] }), `03 02 00 01 00 00 ${values}`), /no UTF-8/);
  apply(world, `03 02 00 01 00 00 ${values.replace('c3 84 ff 41', 'ef bb bf 41')}`);
  const { id, ...thing } = world.entities.Thing.get(1n);
  assert.deepEqual(thing, {
    long: -(2n ** 63n),
    code: 2n ** 64n - 1n,
    is_on: true,
    mood: 'GLAD',
    at: [-1, 1],
    aim: [1, -2, 0],
    name: '\ufeffA',
    raw: Uint8Array.of(0, 255),
    items: [2n ** 64n - 1n, 1n],
    target: (1n << 32n) + 3n,
    exact: 1,
  });
  apply(world, '04 00 01 00 03 00 01 02'); // changes: one row, columns 0 and 1; -1 more wraps, 1 more wraps
  assert.deepEqual([world.entities.Thing.get(1n).long, world.entities.Thing.get(1n).code], [2n ** 63n - 1n, 0n]);
});

describe('what is no snapshot is a ProtocolError', () => {
  for (const [what, hex] of [
    ['nothing', ''],
    ['a number that does not end', '80'],
    ['a number beyond 64 bits', '13 ff ff ff ff ff ff ff ff ff 02'],
    ['a block that is not known', '14 00 00'],
    ['a table that there is not', '13 02 01 00'],
    ['a count beyond the end', '13 02 00 7f'],
    ['a row beyond the last', '13 0e 00 00 0c 01 03 0a 02'],
    ['a member that leaves and is not there', '13 0e 00 00 0d 01 00 00 00'],
    ['a record of no known kind', '13 13'],
    ['an own entity twice', '13 07 02 00 00 00 0e 00 00 00 0e'],
    ['an own entity that is not known', '13 0b 01 00 00 01 01'],
    ['a number beyond its range', '13 0e 00 01 00 00 00 00 01'],
    ['a missing end', '13 0e 00 01 00 00 ac 02 31'],
  ]) {
    test(what, () => assert.throws(() => apply(begun(), hex), ProtocolError));
  }
  for (const shape of [null, 5, {}, { tables: [{}] }, { tables: [{ name: 'A', columns: [{ name: 'id', type: 'u8' }] }] }, { tables: [{ name: 'A', columns: [{ name: 'x', type: 'f16' }] }] }, { tables: [{ name: '__proto__', columns: [] }] }]) {
    test(`the shape ${JSON.stringify(shape)}`, () => assert.throws(() => begun(shape), ProtocolError));
  }
});

describe('the timeline', () => {
  test('the clock is that of the fastest snapshots, and jitter decides how far behind one draws', () => {
    const timeline = new Timeline(TICK);
    for (let tick = 100; tick < 300; tick += 1) timeline.arrived(tick, 5000 + tick * TICK + (tick % 5 === 0 ? 40 : 0));
    assert.equal(timeline.serverTick(5000 + 300 * TICK), 300);
    const { jitter, delay } = timeline.timing();
    assert.equal(jitter, 40);
    assert.ok(delay >= TICK + 40 && delay < TICK + 50);
  });

  test('drawn time never goes back, keeps near its delay, and finds back after a gap', () => {
    const timeline = new Timeline(TICK);
    let seed = 7;
    const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    let [tick, drawn] = [0, -Infinity];
    for (let now = 0; now < 60_000; now += 16) {
      if (now > 30_000 && now < 33_000) continue; // the page slept, or the network did
      while ((tick + 1) * TICK + random() * 30 <= now) timeline.arrived((tick += 1), now);
      if (tick === 0) continue;
      const next = timeline.draw(now);
      assert.ok(next >= drawn, `${next} after ${drawn}`);
      drawn = next;
      if (now > 2000 && (now < 30_000 || now > 44_000)) {
        const behind = (now / TICK - drawn) * TICK;
        assert.ok(behind > TICK && behind < 3 * TICK, `${behind} ms behind at ${now}`);
      }
    }
  });

  test('when the path becomes slower for good, the clock follows', () => {
    const timeline = new Timeline(TICK);
    for (let tick = 0; tick < 600; tick += 1) timeline.arrived(tick, tick * TICK + (tick < 200 ? 0 : 80));
    assert.equal(timeline.serverTick(600 * TICK + 80), 600);
  });
});

describe('sample', () => {
  /** One that moves by 1 in each tick, 100 ticks long, each snapshot on time. */
  function walked(world, ticks, each = () => {}) {
    apply(world, '03  0e 00 01 00 00 00 00 c8 01', TICK);
    for (let tick = 2; tick <= ticks; tick += 1) {
      each(tick);
      world._apply(Buffer.from([...varint(tick * 2), 0x0c, 1, 1, ...varint(200)]), tick * TICK);
    }
  }

  function varint(number) {
    const bytes = [];
    for (; number > 127; number = Math.floor(number / 128)) bytes.push((number & 127) | 128);
    return [...bytes, number];
  }

  test('moves evenly between two snapshots, a little behind the server', () => {
    const world = begun();
    walked(world, 40);
    const now = 40 * TICK + 20;
    const at = (now) => world.sample(now).Player[0].x;
    const xs = [at(now), at(now + 5), at(now + 10)];
    const behind = (40 - 1 + 20 / TICK - xs[0]) * TICK;
    assert.ok(behind >= TICK && behind < TICK + 20, `${behind} ms behind`);
    for (const [i, x] of xs.entries()) assert.ok(Math.abs(x - xs[0] - (5 * i) / TICK) < 1e-9);
    assert.equal(world.entities.Player.get(ID).x, 39, 'as of the newest snapshot');
    assert.equal(world.sample(now + 1000).Player[0].x, 39, 'does not run on without news');
  });

  test('stands still until the tick before it moves, however long it stood', () => {
    const world = begun();
    apply(world, '03  0e 00 01 00 00 00 00 c8 01', TICK);
    for (let tick = 2; tick < 50; tick += 1) world._apply(Buffer.from(varint(tick * 2)), tick * TICK);
    world._apply(Buffer.from([...varint(100), 0x0c, 1, 1, ...varint(200)]), 50 * TICK);
    world.sample(50 * TICK);
    let before = 0;
    for (let now = 50 * TICK; now < 54 * TICK; now += 4) {
      const [{ x }] = world.sample(now).Player;
      assert.ok(x - before <= 4 / TICK + 1e-9, 'at no more than its speed');
      before = x;
    }
    assert.equal(before, 1);
  });

  test('an entity is drawn from its first tick to its last, though the game is told at once', () => {
    const world = begun();
    apply(world, FIRST, 9 * TICK);
    const story = told(world);
    assert.deepEqual(world.sample(9 * TICK).Player, [], 'not yet');
    assert.equal(world.sample(9 * TICK + 60).Player.length, 1);
    apply(world, '16  03 03', 11 * TICK);
    assert.deepEqual(story, ['+1', '-1']);
    assert.equal(world.sample(11 * TICK).Player.length, 1, 'still on its way');
    assert.equal(world.sample(11 * TICK + 60).Player.length, 0);
  });

  test('columns that are not drawn between snapshots, and those of the owner, are the newest', () => {
    const world = begun();
    apply(world, FIRST, 9 * TICK);
    apply(world, '14  0c 01 04 02  0b 01 00 00 01 12', 10 * TICK);
    const [player] = world.sample(11 * TICK).Player;
    assert.deepEqual([player.hp, player.gold], [101, 9]);
  });

  test('what nobody draws does not grow', () => {
    const world = begun();
    walked(world, 2000);
    assert.equal(world.sample(2000 * TICK + 60).Player[0].x, 1999);
  });
});

describe('of a client', () => {
  /** @type {FakeClock} */
  let clock;
  beforeEach(() => (clock = new FakeClock().install()));
  afterEach(() => clock.uninstall());

  async function connected() {
    const Socket = fakeWebSocket();
    const opening = connect('ws://game/', { WebSocket: Socket, world: true, random: () => 0.5 });
    for (let i = 0; i < 100 && !Socket.made.length; i += 1) await settle(); // the module is loaded
    const [socket] = Socket.made;
    socket.accept();
    const hello = JSON.parse(Buffer.from(unhex(socket.sent[0])).subarray(4).toString());
    const gs = { session: '1', schema: { digest: 'd', messages: {}, world: SHAPE } };
    socket.receive(packet(1, JSON.stringify({ code: 200, sys: { heartbeat: 0, serializer: 'protobuf', gs }, user: {} })));
    return { client: await opening, socket, hello, Socket };
  }

  function snapshot(hex) {
    return packet(4, Buffer.from([6, 2, ...Buffer.from('$w'), ...Buffer.from(unhex(hex))]));
  }

  test('asks for the world and shows it', async () => {
    const { client, socket, hello } = await connected();
    assert.equal(hello.sys.gs.world, true);
    socket.receive(snapshot(FIRST));
    assert.equal(client.world.mine('Player').gold, 7);
    assert.ok(client.traffic.bytesIn > 20);
    client.close();
    assert.ok(client.traffic.bytesIn > 20, 'still known');
  });

  test('bytes that are no snapshot end the connection; the next one begins with nothing', async () => {
    const { client, socket, Socket } = await connected();
    socket.receive(snapshot(FIRST));
    const story = told(client.world);
    socket.receive(snapshot('14 00 00'));
    assert.equal(socket.closedWith, 4400);
    await clock.advance(500);
    assert.equal(Socket.made.length, 2);
    Socket.made[1].accept();
    const gs = { session: '2', schema: { digest: 'd', messages: {}, world: SHAPE } };
    Socket.made[1].receive(packet(1, JSON.stringify({ code: 200, sys: { heartbeat: 0, serializer: 'protobuf', gs }, user: {} })));
    await settle();
    assert.deepEqual([client.state, story], ['open', ['+1', '-1']]);
    client.close();
  });

  test('inputs: the first at once, then the newest once a tick', async () => {
    const { client, socket } = await connected();
    const sent = () => socket.sent.splice(0).map((hex) => Buffer.from(unhex(hex)).subarray(11).toString());
    sent();
    for (const x of [1, 2, 3]) client.input('steer', { x });
    assert.deepEqual(sent(), ['{"x":1}']);
    await clock.advance(49);
    assert.deepEqual(sent(), []);
    await clock.advance(1);
    assert.deepEqual(sent(), ['{"x":3}']);
    await clock.advance(49);
    client.input('steer', { x: 4 });
    assert.deepEqual(sent(), []);
    await clock.advance(1);
    assert.deepEqual(sent(), ['{"x":4}']);
    await clock.advance(1000);
    client.input('steer', { x: 5 });
    assert.deepEqual(sent(), ['{"x":5}'], 'after a rest: at once');
    client.close();
  });

  test('the netgraph counts kilobytes in a second, by table', async () => {
    const { client, socket } = await connected();
    const meter = new Meter();
    meter.read(client, 1000);
    socket.receive(snapshot(FIRST));
    meter.read(client, 1010);
    const [, now] = meter.samples;
    assert.deepEqual(now.tables, [['Player', 1], ['own, other', 0.6]]);
    assert.equal(now.kbIn, 2.5);
    client.close();
  });
});
