// gameserver: the bytes of snapshots, column by column: docs/wire.md, "A snapshot". Of gameserver-world.js.

import { ProtocolError } from './gameserver.js';

/**
 * @typedef {{ name: string, type: string, of?: string, length?: number, values?: number[], names?: string[], quantize?: number, to?: string, interpolate?: boolean, every?: number }} ColumnShape
 */

/**
 * @typedef {object} Column
 * @property {string} name
 * @property {number} place Among all columns of its table.
 * @property {string | undefined} to `owner`, `others`; else all.
 * @property {boolean} isDrawn Between two snapshots.
 * @property {number} width Numbers that are drawn.
 * @property {number} every Ticks between two values.
 * @property {any} blank What the first delta builds on.
 * @property {(reader: Reader, old: any) => any} read
 * @property {(raw: any) => any} show
 */

/** @typedef {{ blank: any, read: (reader: Reader, old: any) => any, show: (raw: any) => any }} Codec */

/** @param {string} table @param {ColumnShape} shape @param {number} place @returns {Column} */
export function checkedColumn(table, shape, place) {
  const codec = codecOf(shape);
  if (!codec) throw new ProtocolError(`a world whose ${table}.${shape.name} is of no known type`);
  const isNumber = shape.type === 'vector' || (FLOATS.has(shape.type) || INTEGERS.has(shape.type));
  const isDrawn = shape.interpolate === true && isNumber && shape.to !== 'owner';
  const width = shape.type === 'vector' ? Number(shape.length) : 1;
  return { name: shape.name, place, to: shape.to, isDrawn, width, every: isPositive(shape.every) ? shape.every : 1, ...codec };
}

/** @param {ColumnShape} shape @returns {Codec | null} */
function codecOf({ type, of = '', length, values, names, quantize }) {
  const isQuantized = isPositive(quantize);
  const room = Number.isInteger(length) && /** @type {number} */ (length) >= 0 ? /** @type {number} */ (length) : -1;
  if (FLOATS.has(type)) return isQuantized ? quantized(quantize) : floating(type);
  if (INTEGERS.has(type)) return integer(type);
  if (type === 'bool') return BOOL;
  if (type === 'enum') return Array.isArray(values) ? enumeration(values, Array.isArray(names) ? names : values) : null;
  if (type === 'entity') return REFERENCE;
  if (type === 'vector') {
    if (room < 2 || room > 3 || !FLOATS.has(of)) return null;
    return vector(isQuantized ? quantized(quantize) : floating(of), room);
  }
  if (room < 0) return null;
  if (type === 'str') return { blank: null, read: (reader) => reader.text(room), show: same };
  if (type === 'bytes') return { blank: null, read: (reader) => reader.bytes(room), show: same };
  if (type === 'list' && (FLOATS.has(of) || INTEGERS.has(of))) return list(FLOATS.has(of) ? floating(of) : integer(of, false), room);
  return null;
}

/** Whole steps, which deltas are exact in. @param {number} step @returns {Codec} */
function quantized(step) {
  return { blank: 0, read: (reader, old) => reader.sum(old), show: (raw) => Number(raw) * step };
}

/** @param {string} type @returns {Codec} */
function floating(type) {
  return { blank: null, read: type === 'f32' ? (reader) => reader.f32() : (reader) => reader.f64(), show: same };
}

/** @param {string} type @param {boolean} [isChecked] @returns {Codec} */
function integer(type, isChecked = true) {
  const range = INTEGERS.get(type);
  if (!range) return { blank: 0, read: (reader, old) => reader.sum(old), show: type === 'u64' ? (raw) => BigInt.asUintN(64, BigInt(raw)) : BigInt };
  const [least, most] = range;
  const read = (/** @type {Reader} */ reader, /** @type {any} */ old) => {
    const number = reader.sum(old);
    if (isChecked && !(number >= least && number <= most)) throw reader.error("a number beyond its column's range");
    return number;
  };
  return { blank: 0, read, show: Number };
}

/** @type {Codec} */
const BOOL = { blank: null, read: (reader) => reader.bool(), show: same };

/** Shown by name, as in messages. @param {number[]} values @param {unknown[]} names @returns {Codec} */
function enumeration(values, names) {
  const shown = new Map(values.map((value, place) => [value, names[place]]));
  const read = (/** @type {Reader} */ reader) => {
    const number = reader.sum(0);
    if (!shown.has(/** @type {number} */ (number))) throw reader.error("a number that is none of its enum's");
    return number;
  };
  return { blank: null, read, show: (raw) => shown.get(raw) };
}

/** An entity's id, of whatever is in view or not. @type {Codec} */
const REFERENCE = { blank: null, read: (reader) => reader.reference(), show: same };

/** @param {Codec} number @param {number} width @returns {Codec} */
function vector(number, width) {
  const places = Array.from({ length: width }, (_, i) => i);
  return {
    blank: places.map(() => number.blank),
    read: (reader, old) => places.map((i) => number.read(reader, old[i])),
    show: (raw) => raw.map(number.show),
  };
}

/** @param {Codec} number @param {number} room @returns {Codec} */
function list(number, room) {
  const read = (/** @type {Reader} */ reader) => {
    const items = [];
    for (let left = reader.count(room); left > 0; left -= 1) items.push(number.show(number.read(reader, number.blank)));
    return items;
  };
  return { blank: null, read, show: same };
}

/** Bytes of a snapshot, as they are read. */
export class Reader {
  at = 0;
  #bytes;
  #view;
  #mask = new Uint8Array(8);

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** @param {string} what */
  error(what) {
    return new ProtocolError(`a snapshot with ${what} (byte ${this.at})`);
  }

  get isEmpty() {
    return this.at === this.#bytes.length;
  }

  /** At most 64 bits; a bigint where a number is not exact. @returns {number | bigint} */
  number() {
    const start = this.at;
    let number = 0;
    for (let factor = 1; factor < 2 ** 49; factor *= 128) {
      const byte = this.#bytes[this.at++];
      if (byte === undefined) throw this.error('a number that does not end');
      if (byte < 0x80) return number + byte * factor;
      number += (byte & 0x7f) * factor;
    }
    this.at = start;
    return this.#long();
  }

  #long() {
    let number = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.at++];
      if (byte === undefined || (shift === 63n && byte > 1)) break;
      number |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return exact(number);
    }
    throw this.error('a number that does not end');
  }

  /** @param {number} [most] */
  small(most = 0xff_ff_ff_ff) {
    const number = this.number();
    if (number > most) throw this.error('a number beyond its bits');
    return Number(number);
  }

  /** How many follow: each takes a byte at least. @param {number} [most] */
  count(most = Infinity) {
    const count = this.small();
    if (count > this.#bytes.length - this.at) throw this.error('a count beyond its end');
    if (count > most) throw this.error('more than its column has room for');
    return count;
  }

  /** A signed number that is so much more, modulo 2^64. @param {number | bigint} old @returns {number | bigint} */
  sum(old) {
    const number = this.number();
    if (typeof number === 'number' && typeof old === 'number') {
      const sum = old + (number % 2 ? -(number + 1) / 2 : number / 2);
      if (Number.isSafeInteger(sum)) return sum;
    }
    const long = BigInt(number);
    const more = long & 1n ? -(long >> 1n) - 1n : long >> 1n;
    return exact(BigInt.asIntN(64, BigInt(old) + more));
  }

  /** The distance to the last row; the mask is kept for `isInMask`. @param {number} columns */
  rowHead(columns) {
    const head = this.number();
    if (columns > MASK_BITS_JOINED) {
      const length = Math.ceil(columns / 8);
      this.#mask.set(this.#take(length));
      return Number(head);
    }
    const factor = 2 ** columns;
    if (typeof head !== 'number') throw this.error("a row beyond the block's last");
    this.#mask[0] = head % factor;
    return Math.floor(head / factor);
  }

  /** @param {number} bit */
  isInMask(bit) {
    return ((this.#mask[bit >> 3] >> (bit & 7)) & 1) !== 0;
  }

  f32() {
    return this.#finite(this.#view.getFloat32(this.#skip(4), true));
  }

  f64() {
    return this.#finite(this.#view.getFloat64(this.#skip(8), true));
  }

  bool() {
    const byte = this.#bytes[this.#skip(1)];
    if (byte > 1) throw this.error('a bool that is neither 0 nor 1');
    return byte === 1;
  }

  /** A copy. @param {number} room */
  bytes(room) {
    return this.#take(this.count(room)).slice();
  }

  /** @param {number} room */
  text(room) {
    const bytes = this.#take(this.count(room));
    try {
      return utf8.decode(bytes);
    } catch {
      throw this.error('text that is no UTF-8');
    }
  }

  /** @returns {bigint | null} An entity's id. */
  reference() {
    const index = this.small();
    return index === 0 ? null : (BigInt(this.small()) << 32n) + BigInt(index);
  }

  /** @param {number} float */
  #finite(float) {
    if (!Number.isFinite(float)) throw this.error('a float that is not finite');
    return float;
  }

  /** @param {number} length */
  #take(length) {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** @param {number} length @returns {number} Where they begin. */
  #skip(length) {
    const { at } = this;
    if (length > this.#bytes.length - at) throw this.error('a missing end');
    this.at += length;
    return at;
  }
}

/** A number where it is exact. @param {bigint} long @returns {number | bigint} */
function exact(long) {
  const number = Number(long);
  return Number.isSafeInteger(number) ? number : long;
}

/** @template T @param {T} value @returns {T} */
function same(value) {
  return value;
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
export function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Of what becomes a property. @param {unknown} value @returns {value is string} */
export function isName(value) {
  return typeof value === 'string' && value !== '' && value !== '__proto__';
}

/** @param {unknown} value @returns {value is number} */
export function isPositive(value) {
  return typeof value === 'number' && value > 0 && Number.isFinite(value);
}

/** In a group of at most so many columns, mask and distance are one number. */
const MASK_BITS_JOINED = 5;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const FLOATS = new Set(['f32', 'f64']);
/** Their ranges; those of 64 bits are bigints to the game. @type {Map<string, readonly [number, number] | null>} */
const INTEGERS = new Map([
  ['i8', /** @type {const} */ ([-(2 ** 7), 2 ** 7 - 1])],
  ['i16', /** @type {const} */ ([-(2 ** 15), 2 ** 15 - 1])],
  ['i32', /** @type {const} */ ([-(2 ** 31), 2 ** 31 - 1])],
  ['u8', /** @type {const} */ ([0, 2 ** 8 - 1])],
  ['u16', /** @type {const} */ ([0, 2 ** 16 - 1])],
  ['u32', /** @type {const} */ ([0, 2 ** 32 - 1])],
  ['i64', null],
  ['u64', null],
]);
