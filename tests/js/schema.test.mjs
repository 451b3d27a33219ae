// Protobuf by a schema: golden bytes, hostile bytes, values that do not fit. Against google's: tests/test_js_schema.py.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ProtocolError, Schema } from '../../clients/js/gameserver.js';
import { hex, unhex } from './fakes.mjs';

/** A schema whose message `M` has these fields. */
function schemaOf(fields, rest = {}) {
  return new Schema({ digest: '1', messages: { M: fields, P: [[1, 'x', 'i32']] }, enums: { Kind: { WALK: 0, RUN: 1, RACE: 1 } }, ...rest });
}

const encode = (fields, value) => hex(schemaOf(fields).encode('M', value));
const decode = (fields, bytes) => schemaOf(fields).decode('M', unhex(bytes));

// The first are those of the protobuf documentation (protobuf.dev/programming-guides/encoding).
const golden = [
  ['08 96 01', [[1, 'a', 'i32']], { a: 150 }],
  ['12 07 74 65 73 74 69 6e 67', [[2, 'b', 'str']], { b: 'testing' }],
  ['1a 03 08 96 01', [[3, 'c', '.P']], { c: { x: 150 } }],
  ['32 06 03 8e 02 9e a7 05', [[6, 'f', 'i32', 'repeated']], { f: [3, 270, 86942] }],
  ['28 01 28 02 28 03', [[5, 'e', 'i32', 'unpacked']], { e: [1, 2, 3] }],
  ['08 fe ff ff ff ff ff ff ff ff 01', [[1, 'a', 'i32']], { a: -2 }],
  ['08 ff ff ff ff 0f', [[1, 'a', 's32']], { a: -(2 ** 31) }],
  ['08 ff ff ff ff ff ff ff ff ff 01', [[1, 'a', 's64']], { a: -(2n ** 63n) }],
  ['08 ff ff ff ff ff ff ff ff 7f', [[1, 'a', 'i64']], { a: 2n ** 63n - 1n }],
  ['09 ff ff ff ff ff ff ff ff', [[1, 'a', 'fixed64']], { a: 2n ** 64n - 1n }],
  ['0d ff ff ff ff', [[1, 'a', 'sfixed32']], { a: -1 }],
  ['0d 00 00 00 80', [[1, 'a', 'f32']], { a: -0 }],
  ['08 01', [[1, 'a', '.Kind']], { a: 'RUN' }],
  ['08 07', [[1, 'a', '.Kind']], { a: 7 }],
  ['08 00', [[1, 'a', 'u32', 'optional']], { a: 0 }],
  ['0a 00', [[1, 'a', '.P', 'optional']], { a: { x: 0 } }],
  ['0a 05 0a 01 6b 10 01', [[1, 'a', 'bool', 'map', 'str']], { a: { __proto__: null, k: true } }],
  ['fa ff ff ff 0f 01 00', [[536870911, 'a', 'bytes']], { a: unhex('00') }],
];

for (const [bytes, fields, value] of golden) {
  test(`golden ${bytes}`, () => {
    assert.equal(encode(fields, value), bytes);
    assert.deepEqual(decode(fields, bytes), value);
  });
}

test('what was not sent has its default, or is not there', () => {
  const fields = [
    [9, 'long', 'u64'], [1, 'text', 'str'], [2, 'flag', 'bool'], [3, 'bytes', 'bytes'], [4, 'kind', '.Kind'], [5, 'items', '.P', 'repeated'],
    [6, 'map', 'f32', 'map', 'i32'], [7, 'point', '.P'], [8, 'maybe', 'u32', 'optional'], [10, 'one', 'str', 'oneof', 'which'],
  ];
  const empty = {
    text: '', flag: false, bytes: new Uint8Array(), kind: 'WALK', items: [], map: Object.create(null), long: 0n,
  };
  assert.deepEqual(decode(fields, ''), empty);
  assert.deepEqual(Object.keys(decode(fields, '')), Object.keys(empty));
  assert.notEqual(decode(fields, '').items, decode(fields, '').items);
  assert.equal(encode(fields, empty), '');
  assert.equal(encode(fields, { text: undefined, point: null, maybe: undefined }), '');
});

test('names that every object has are fields like others', () => {
  const fields = [[1, 'constructor', '.M'], [2, 'toString', 'str'], [3, 'prototype', '.M'], [4, 'polluted', 'str']];
  assert.equal(encode(fields, {}), '');
  const value = { toString: '', constructor: { toString: '', prototype: { toString: 'x', polluted: 'y' }, polluted: '' }, polluted: '' };
  const bytes = encode(fields, value);
  assert.equal(bytes, '0a 08 1a 06 12 01 78 22 01 79');
  assert.deepEqual(decode(fields, bytes), value);
  assert.equal({}.polluted, undefined);
  assert.equal(typeof {}.toString, 'function');
});

test('a map whose keys are a stranger\'s pollutes nothing', () => {
  const fields = [[1, 'by', '.P', 'map', 'str']];
  const { by } = decode(fields, '0a 0f 0a 09 5f 5f 70 72 6f 74 6f 5f 5f 12 02 08 05');
  assert.deepEqual(Object.keys(by), ['__proto__']);
  assert.deepEqual(by['__proto__'], { x: 5 });
  assert.equal({}.x, undefined);
  assert.equal(encode(fields, { by }), '0a 0f 0a 09 5f 5f 70 72 6f 74 6f 5f 5f 12 02 08 05');
});

test('what is taken besides what is given', () => {
  assert.equal(encode([[1, 'a', 'u64']], { a: 5 }), '08 05');
  assert.equal(encode([[1, 'a', 'u32']], { a: 5n }), '08 05');
  assert.equal(encode([[1, 'a', 'i32']], { a: -0 }), '');
  assert.equal(encode([[1, 'a', '.Kind']], { a: 'RACE' }), '08 01');
  assert.equal(encode([[1, 'a', 'bytes']], { a: unhex('01 02').buffer }), '0a 02 01 02');
  assert.equal(encode([[1, 'a', 'f32', 'repeated']], { a: Float32Array.of(1) }), '0a 04 00 00 80 3f');
  assert.equal(encode([[1, 'a', 'u32', 'map', 'i64']], { a: new Map([[-1n, 2]]) }), '0a 0d 08 ff ff ff ff ff ff ff ff ff 01 10 02');
  assert.equal(encode([[1, 'a', 'u32', 'map', 'bool']], { a: { true: 2 } }), '0a 04 08 01 10 02');
  class Point {
    x = 3;
    move() {}
  }
  assert.equal(encode([[1, 'a', '.P']], { a: new Point() }), '0a 02 08 03');
});

const misfits = [
  ['f32', '1', /^M\.a: "1" is no f32/], ['f32', 1e300, /^M\.a: 1e\+300 is beyond f32/], ['f64', 1n, /^M\.a: 1 is no f64/],
  ['i32', 1.5, /^M\.a: 1\.5 is no i32: a whole number from -2147483648 to 2147483647/], ['i32', 2 ** 31, /is no i32/],
  ['u32', -1, /is no u32/], ['u32', 2n ** 32n, /is no u32/], ['fixed32', NaN, /is no fixed32/], ['sfixed32', true, /is no sfixed32/],
  ['i64', 2n ** 63n, /^M\.a: 9223372036854775808 is no i64: a BigInt from -9223372036854775808 to/], ['u64', -1n, /is no u64/],
  ['u64', 2 ** 53, /is no u64/], ['s64', '1', /is no s64/], ['fixed64', 0.5, /is no fixed64/],
  ['bool', 1, /^M\.a: 1 is no bool/], ['str', 5, /^M\.a: 5 is no str/], ['str', Symbol('x'), /Symbol\(x\) is no str/],
  ['bytes', 'x', /^M\.a: "x" is no bytes: a Uint8Array/], ['bytes', [1], /an array is no bytes/],
  ['.Kind', 'FLY', /^M\.a: "FLY" is no Kind: WALK, RUN, RACE/], ['.Kind', 2 ** 31, /is no Kind/],
  ['.P', 5, /^M\.a: 5 is no P/], ['.P', [], /^M\.a: an array is no P/], ['.P', { x: 'x' }, /^M\.a\.x: "x" is no i32/],
  ['.P', unhex('08 01'), /^M\.a: an array is no P/],
  ['i32', 5, /^M\.a: 5 is no array/, 'repeated'], ['i32', '12', /^M\.a: "12" is no array/, 'repeated'], ['i32', [1, null], /^M\.a\[1\]: null is no i32/, 'repeated'],
  ['.P', [{}, { x: 0 }, { x: '' }], /^M\.a\[2\]\.x: "" is no i32/, 'unpacked'],
  ['.P', { k: { x: '' } }, /^M\.a\["k"\]\.x: "" is no i32/, 'map', 'str'], ['.P', 5, /^M\.a: 5 is no map/, 'map', 'str'],
  ['str', { one: '' }, /^M\.a\["one"\]: "one" is no u32/, 'map', 'u32'], ['str', { yes: '' }, /"yes" is no bool/, 'map', 'bool'],
];

for (const [type, value, message, ...label] of misfits) {
  test(`does not fit: ${type} ${message}`, () => {
    const expected = (error) => error instanceof TypeError && assert.match(error.message, message) === undefined;
    assert.throws(() => encode([[1, 'a', type, ...label]], { a: value }), expected);
  });
}

test('a message that is none, two of one oneof, an object that holds itself', () => {
  for (const value of [null, 5, 'x', []]) assert.throws(() => encode([], value), /^TypeError: M: .* is no M/);
  const oneof = [[1, 'a', 'str', 'oneof', 'which'], [2, 'b', 'u32', 'oneof', 'which'], [3, 'c', 'u32', 'oneof', 'other']];
  assert.throws(() => encode(oneof, { a: '', b: 0, c: 0 }), /^TypeError: M\.b: which is a oneof, and a is given too/);
  assert.equal(encode(oneof, { b: 0, c: 0 }), '10 00 18 00');
  const loop = {};
  loop.a = loop;
  assert.throws(() => encode([[1, 'a', '.M']], loop), /^TypeError: M(\.a){32}: nested more than 32 deep/);
  assert.throws(() => schemaOf([]).encode('Other', {}), /without a message "Other"/);
});

test('an unknown property is told once, and not sent', (context) => {
  const warned = context.mock.method(console, 'warn', () => {});
  const schema = schemaOf([[1, 'a', 'u32']]);
  assert.equal(hex(schema.encode('M', { a: 1, aa: 2 })), '08 01');
  schema.encode('M', { b: 2 });
  assert.deepEqual(warned.mock.calls.map((call) => call.arguments), [['gameserver: M has no field "aa", which is not sent; its fields: a']]);
});

const point = [[1, 'x', 'i32'], [2, 'next', '.M'], [3, 'all', 'fixed32', 'repeated'], [4, 'text', 'str'], [5, 'by', '.P', 'map', 'str']];
const hostile = {
  'no value': '08',
  'unended number': '08 80',
  'number of eleven bytes': '08 80 80 80 80 80 80 80 80 80 80 01',
  'field 0': '00 00',
  'tag over 32 bits': '88 80 80 80 10 00',
  'tag of six bytes': '88 80 80 80 80 00 00',
  'message runs over': '12 02 08',
  'number runs over its message': '12 01 08 01',
  'length over 32 bits': '12 80 80 80 80 10',
  'length of 2^32-1': '12 ff ff ff ff 0f',
  'length of 2^31': '22 80 80 80 80 08',
  'text runs over': '22 05 61',
  'text runs over its message': '12 02 22 01 08 01',
  'fixed number runs over its message': '12 03 7d 00 00 00 00 08 01',
  'text no UTF-8': '22 01 ff',
  'text of surrogates': '22 03 ed a0 80',
  'half a number in a packed list': '1a 05 01 00 00 00 02',
  'cut fixed64 of an unknown field': 'f9 01 00 00',
  'unended group': '7b',
  'end of no group': '7c',
  'end of another group': '7b 84 01',
  'wire type 6': '7e',
  'wire type 7': '0f',
  'entry runs over': '2a 03 0a 05 61',
};

for (const [what, bytes] of Object.entries(hostile)) {
  test(`hostile: ${what}`, () => assert.throws(() => decode(point, bytes), ProtocolError));
}

test('fields that are not known, or come with another wire type, are skipped', () => {
  const skipped = '70 05 79 00 00 00 00 00 00 00 00 7a 01 ff 7b 08 01 7b 7c 7c 7d 00 00 00 00';
  assert.deepEqual(decode([[1, 'x', 'i32']], `${skipped} 08 07 0a 01 05`), { x: 7 });
});

test('what comes twice: the last number, all of a message, only the last of a oneof', () => {
  const fields = [[1, 'x', 'i32'], [2, 'next', '.M', 'oneof', 'which'], [3, 'flag', 'bool', 'oneof', 'which'], [4, 'all', 'u32', 'repeated'], [5, 'by', '.M', 'map', 'i32']];
  const rest = { all: [], by: Object.create(null) };
  assert.deepEqual(decode(fields, '08 01 08 02'), { x: 2, ...rest });
  assert.deepEqual(decode(fields, '12 04 08 01 20 07 12 02 20 08'), { x: 0, ...rest, next: { x: 1, ...rest, all: [7, 8] } });
  assert.deepEqual(decode(fields, '12 02 08 01 18 00'), { x: 0, ...rest, flag: false });
  assert.deepEqual(decode(fields, '12 02 08 01 18 00 12 00'), { x: 0, ...rest, next: { x: 0, ...rest } });
  assert.deepEqual({ ...decode(fields, '2a 08 12 02 08 01 12 02 20 07').by }, { 0: { x: 1, ...rest, all: [7] } });
  assert.deepEqual({ ...decode(fields, '2a 04 12 02 08 01 2a 02 08 00').by }, { 0: { x: 0, ...rest } });
});

test('a bool is all of its bits, and bytes are a copy', () => {
  assert.deepEqual(decode([[1, 'a', 'bool']], '08 80 80 80 80 10'), { a: true });
  const bytes = unhex('0a 01 05');
  const { a } = schemaOf([[1, 'a', 'bytes']]).decode('M', bytes);
  bytes[2] = 6;
  assert.deepEqual(a, unhex('05'));
});

test('32 messages within one another are read, 33 are not; nor groups, nor messages in maps', () => {
  const varint = (number) => (number < 128 ? [number] : [(number & 127) | 128, number >> 7]);
  const sized = (tag, bytes) => [tag, ...varint(bytes.length), ...bytes];
  const around = {
    message: (inner) => sized(0x12, inner),
    group: (inner) => [0x7b, ...inner, 0x7c],
    entry: (inner) => sized(0x32, sized(0x12, inner)),
  };
  for (const [what, wrap] of Object.entries(around)) {
    const nested = (depth) => {
      let bytes = [];
      for (let level = 1; level < depth; level++) bytes = wrap(bytes);
      return hex(Uint8Array.from(bytes));
    };
    const fields = [...point, [6, 'maps', '.M', 'map', 'i32']];
    decode(fields, nested(32));
    for (const depth of [33, 1000]) assert.throws(() => decode(fields, nested(depth)), /nested more than 32 deep/, what);
  }
});

test('two bytes that become a large message are counted as one', () => {
  const fields = Array.from({ length: 99 }, (_, index) => [index + 1, `f${index}`, 'str', index === 98 ? 'unpacked' : 'repeated']);
  const bombs = {
    messages: [[...fields, [200, 'all', '.M', 'repeated']], Uint8Array.from({ length: 3 * 50_000 }, (_, at) => [0xc2, 0x0c, 0][at % 3])],
    texts: [fields, Uint8Array.from({ length: 2 * 5_000_000 }, (_, at) => [0x0a, 0][at % 2])],
    packed: [[[1, 'a', 'bool', 'repeated']], new Uint8Array([0x0a, ...[0x84, 0xad, 0xe2, 0x04], ...new Uint8Array(10_000_004)])],
    entries: [[[1, 'a', 'bool', 'map', 'i32']], Uint8Array.from({ length: 2 * 2_000_000 }, (_, at) => [0x0a, 0][at % 2])],
  };
  for (const [what, [shape, bytes]] of Object.entries(bombs)) {
    assert.throws(() => schemaOf(shape).decode('M', bytes), (error) => error instanceof ProtocolError && error.message.includes('values'), what);
  }
});

const bad = {
  'nothing': null,
  'a list': [],
  'no digest': { messages: {} },
  'an empty digest': { digest: '' },
  'a long digest': { digest: 'x'.repeat(129) },
  'messages as a list': { messages: [] },
  'fields as an object': { messages: { M: {} } },
  'a field as an object': { messages: { M: [{}] } },
  'number 0': { messages: { M: [[0, 'a', 'u32']] } },
  'a number of 30 bits': { messages: { M: [[2 ** 29, 'a', 'u32']] } },
  'half a number': { messages: { M: [[1.5, 'a', 'u32']] } },
  'no name': { messages: { M: [[1, '', 'u32']] } },
  '__proto__': { messages: { M: [[1, '__proto__', 'u32']] } },
  'an unknown type': { messages: { M: [[1, 'a', 'int32']] } },
  'a message that is not there': { messages: { M: [[1, 'a', '.N']] } },
  'an unknown label': { messages: { M: [[1, 'a', 'u32', 'required']] } },
  'a float as a key': { messages: { M: [[1, 'a', 'u32', 'map', 'f32']] } },
  'a message as a key': { messages: { M: [[1, 'a', 'u32', 'map', '.M']] } },
  'no key': { messages: { M: [[1, 'a', 'u32', 'map']] } },
  'a oneof without a name': { messages: { M: [[1, 'a', 'u32', 'oneof']] } },
  'two of one number': { messages: { M: [[1, 'a', 'u32'], [1, 'b', 'u32']] } },
  'two of one name': { messages: { M: [[1, 'a', 'u32'], [2, 'a', 'u32']] } },
  'an enum with a text': { enums: { E: { A: '0' } } },
  'an enum over 32 bits': { enums: { E: { A: 2 ** 31 } } },
  'a route without its message': { routes: { Move: { request: 'Move' } } },
  'a push without its message': { pushes: { Move: 'Move' } },
};

for (const [what, document] of Object.entries(bad)) {
  test(`no schema: ${what}`, () => {
    const whole = Array.isArray(document) || document === null ? document : { digest: '1', ...document };
    assert.throws(() => new Schema(what.includes('no digest') ? document : whole), ProtocolError);
  });
}

test('a message may be named as a type is, and hold itself', () => {
  const schema = new Schema({ digest: '1', messages: { str: [[1, 'a', '.str'], [2, 'b', 'str']], 'a.b.M': [[1, 'c', '.str']] } });
  assert.equal(hex(schema.encode('a.b.M', { c: { a: { b: 'x' } } })), '0a 05 0a 03 12 01 78');
});
