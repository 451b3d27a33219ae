// The codecs of the browser client against the golden vectors of the wire.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deflateSync } from 'node:zlib';

import {
  MessageType, PacketDecoder, PacketType, ProtocolError,
  decodeBody, decodeError, decodeHandshake, decodeMessage, encodeBody, encodeMessage, encodePacket, inflate,
} from '../../clients/js/gameserver.js';
import { hex, unhex } from './fakes.mjs';

const { request, notify, response, push } = MessageType;
const none = '';

const messages = [
  ['00 00 01 61', { type: request, id: 0, route: 'a' }],
  ['01 00 00 01', { type: request, id: 0, route: 1 }],
  ['02 01 61', { type: notify, route: 'a' }],
  ['06 01 61', { type: push, route: 'a' }],
  ['07 00 01', { type: push, route: 1 }],
  ['04 81 01', { type: response, id: 129 }],
  ['04 00 01', { type: response, id: 0, body: '01' }],
  ['24 00 01', { type: response, id: 0, body: '01', error: true }],
  ['00 01 09 72 6f 6f 6d 2e 6a 6f 69 6e 7b 7d', { type: request, id: 1, route: 'room.join', body: '7b 7d' }],
  ['01 ac 02 00 07 7b 7d', { type: request, id: 300, route: 7, body: '7b 7d' }],
  ['06 06 6f 6e 4d 6f 76 65 7b 22 78 22 3a 31 7d', { type: push, route: 'onMove', body: '7b 22 78 22 3a 31 7d' }],
  ['04 ff ff ff ff 0f', { type: response, id: 0xffffffff }],
  ['04 80 80 80 80 08', { type: response, id: 0x80000000 }],
  ['14 01 78', { type: response, id: 1, body: '78', compressed: true }],
];

for (const [bytes, given] of messages) {
  const message = { id: 0, route: none, error: false, compressed: false, ...given, body: unhex(given.body ?? '') };
  test(`message ${bytes}`, () => {
    assert.equal(hex(encodeMessage(message)), bytes);
    assert.deepEqual(decodeMessage(unhex(bytes)), message);
  });
}

const badMessages = {
  'empty': '',
  'type 4': '08 00',
  'type 7': '0e 00',
  'unknown flag': '44 01',
  'no id': '04',
  'unended id': '04 81',
  'id of six bytes': '04 80 80 80 80 80 01',
  'id above 32 bits': '04 ff ff ff ff 1f',
  'no route': '06',
  'route runs over': '06 02 61',
  'half a code': '07 00',
  'route no UTF-8': '06 01 ff',
};

for (const [what, bytes] of Object.entries(badMessages)) {
  test(`bad message: ${what}`, () => assert.throws(() => decodeMessage(unhex(bytes)), ProtocolError));
}

test('packets with their header', () => {
  assert.equal(hex(encodePacket(PacketType.handshakeAck, new Uint8Array(0))), '02 00 00 00');
  assert.equal(hex(encodePacket(PacketType.heartbeat, new Uint8Array(0))), '03 00 00 00');
  assert.equal(hex(encodePacket(PacketType.handshake, new Uint8Array(68)).subarray(0, 4)), '01 00 00 44');
  assert.equal(hex(encodePacket(PacketType.data, new Uint8Array(0x010203)).subarray(0, 4)), '04 01 02 03');
  assert.throws(() => encodePacket(PacketType.data, new Uint8Array(1 << 24)), RangeError);
});

test('what does not fit is refused when it is encoded', () => {
  const body = new Uint8Array(0);
  assert.throws(() => encodeMessage({ type: push, id: 0, route: 'é'.repeat(128), body }), RangeError);
  assert.throws(() => encodeMessage({ type: request, id: 2 ** 32, route: 'a', body }), RangeError);
  assert.throws(() => encodeMessage({ type: request, id: -1, route: 'a', body }), RangeError);
  assert.throws(() => encodeBody(() => 0), TypeError);
});

test('a stream cut anywhere gives the same packets', () => {
  const stream = unhex('03 00 00 00 04 00 00 0a 04 01 7b 22 6f 6b 22 3a 31 7d 02 00 00 00 05 00 00 02 7b 7d');
  const whole = ['3:', '4:04 01 7b 22 6f 6b 22 3a 31 7d', '2:', '5:7b 7d'];
  for (let size = 1; size <= stream.length; size++) {
    const decoder = new PacketDecoder();
    const seen = [];
    for (let at = 0; at < stream.length; at += size) {
      decoder.feed(stream.slice(at, at + size));
      for (let packet = decoder.next(); packet; packet = decoder.next()) seen.push(`${packet.type}:${hex(packet.body)}`);
    }
    assert.deepEqual(seen, whole, `pieces of ${size}`);
  }
});

test('a bad type is judged on its first byte, a length on the header', () => {
  for (const [bytes, allowed] of [['00', 10], ['06', 10], ['ff', 10], ['04 00 00 0b', 10]]) {
    const decoder = new PacketDecoder(allowed);
    decoder.feed(unhex(bytes));
    assert.throws(() => decoder.next(), ProtocolError, bytes);
  }
  const decoder = new PacketDecoder(10);
  decoder.feed(unhex('04 00 00 0a'));
  assert.equal(decoder.next(), null);
  decoder.feed(unhex('00 01 02 03 04 05 06 07 08 09'));
  assert.equal(hex(decoder.next()?.body ?? unhex('')), '00 01 02 03 04 05 06 07 08 09');
});

test('random bytes give packets or ProtocolError, nothing else', () => {
  let state = 12345; // a small generator of our own: a failure can be run again
  const random = (below) => (state = (state * 1103515245 + 12345) % 2 ** 31) % below;
  for (let round = 0; round < 3000; round++) {
    const decoder = new PacketDecoder(64);
    try {
      for (let piece = 0; piece < 5; piece++) {
        const bytes = Uint8Array.from({ length: random(20) }, () => (random(3) ? random(7) : random(256)));
        decoder.feed(bytes);
        for (let packet = decoder.next(); packet; packet = decoder.next()) decodeMessage(packet.body);
      }
    } catch (error) {
      assert.ok(error instanceof ProtocolError, String(error));
    }
    const bytes = Uint8Array.from({ length: random(40) }, () => random(256));
    decodeError(bytes);
    try {
      decodeHandshake(bytes);
    } catch (error) {
      assert.ok(error instanceof ProtocolError, String(error));
    }
  }
});

test('errors in protobuf and in JSON', () => {
  const protobuf = decodeError(unhex('0a 07 50 49 54 2d 34 30 34 12 09 6e 6f 74 20 66 6f 75 6e 64'));
  assert.deepEqual([protobuf.code, protobuf.msg, protobuf.metadata], ['PIT-404', 'not found', {}]);
  const more = decodeError(unhex('0a 01 78 1a 06 0a 01 6b 12 01 76'));
  assert.deepEqual([more.code, more.msg, more.metadata], ['x', '', { k: 'v' }]);
  const json = decodeError(encodeBody({ code: 'GS-404', msg: 'no such route', metadata: { route: 'a' } }));
  assert.deepEqual([json.code, json.msg, json.metadata], ['GS-404', 'no such route', { route: 'a' }]);
  for (const bad of ['', 'ff', '7b', '0a 09 61', '7b 7d', '0a ff ff ff ff ff ff']) assert.equal(decodeError(unhex(bad)).code, 'unknown');
});

test('bodies', () => {
  assert.equal(hex(encodeBody(undefined)), '7b 7d');
  assert.equal(hex(encodeBody(null)), hex(Buffer.from('null')));
  assert.equal(hex(encodeBody(unhex('00 ff'))), '00 ff');
  assert.equal(hex(encodeBody(unhex('00 ff').buffer)), '00 ff');
  assert.equal(hex(encodeBody('😀')), '22 f0 9f 98 80 22');
  assert.equal(decodeBody(unhex('')), null);
  assert.equal(decodeBody(Buffer.from('"\\ud83d\\ude00"')), '😀');
});

test('a handshake is read leniently, and needs a code', () => {
  const full = decodeHandshake(encodeBody({ code: 200, sys: { heartbeat: 15, dict: { a: 1, b: 'x', c: 70000 }, gs: { session: '7' } } }));
  assert.deepEqual(full.sys, { heartbeat: 15, serializer: 'json', dict: { a: 1 }, gs: { session: '7' } });
  assert.deepEqual(decodeHandshake(encodeBody({ code: 400 })).sys, { heartbeat: 0, serializer: 'json', dict: {}, gs: {} });
  for (const bad of [[], 7, null, {}, { code: '200' }]) assert.throws(() => decodeHandshake(encodeBody(bad)), ProtocolError);
});

test('inflating is bounded', async () => {
  const text = Buffer.from('{"x":1}'.repeat(1000));
  assert.deepEqual(Buffer.from(await inflate(deflateSync(text), text.length)), text);
  await assert.rejects(inflate(deflateSync(text), text.length - 1), ProtocolError);
  await assert.rejects(inflate(deflateSync(Buffer.alloc(50_000_000)), 1000), ProtocolError);
  await assert.rejects(inflate(unhex('78 9c 00 01 02'), 1000), ProtocolError);
  await assert.rejects(inflate(unhex(''), 1000), ProtocolError);
});
