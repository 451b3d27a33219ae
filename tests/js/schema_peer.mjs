// Reads a line of JSON, answers with one: what the browser client makes of bytes and values. tests/test_js_schema.py asks.
//
// Numbers travel as the hex of a float64, so that -0, NaN and infinities do too: see `described`.
import { createInterface } from 'node:readline';

import { ProtocolError, Schema } from '../../clients/js/gameserver.js';

/** A value of the client as JSON that says its type. */
function described(value) {
  if (typeof value === 'number') return `f:${Number.isNaN(value) ? 'nan' : hexOf(value)}`;
  if (typeof value === 'bigint') return `n:${value}`;
  if (typeof value === 'string') return `s:${value}`;
  if (value instanceof Uint8Array) return `b:${Buffer.from(value).toString('hex')}`;
  if (Array.isArray(value)) return value.map(described);
  if (typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, described(one)]));
  return value;
}

/** The other way. */
function undescribed(value) {
  if (Array.isArray(value)) return value.map(undescribed);
  if (typeof value === 'object') {
    const object = Object.create(null);
    for (const [key, one] of Object.entries(value)) object[key] = undescribed(one);
    return object;
  }
  if (typeof value !== 'string') return value;
  const [kind, text] = [value[0], value.slice(2)];
  if (kind === 'n') return BigInt(text);
  if (kind === 'b') return Uint8Array.from(Buffer.from(text, 'hex'));
  if (kind === 's') return text;
  return text === 'nan' ? NaN : Buffer.from(text, 'hex').readDoubleBE();
}

function hexOf(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(number);
  return bytes.toString('hex');
}

/** What went wrong as `{error}`, if it is what the client may throw. */
function tried(call, expected) {
  try {
    return { ok: call() };
  } catch (error) {
    return error instanceof expected ? { error: error.message } : { thrown: error.stack };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { document, message, decode, encode } = JSON.parse(line);
  const schema = new Schema(document);
  const answer = {
    decoded: decode.map((hex) => tried(() => described(schema.decode(message, Buffer.from(hex, 'hex'))), ProtocolError)),
    encoded: encode.map((value) => tried(() => Buffer.from(schema.encode(message, undescribed(value))).toString('hex'), TypeError)),
  };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
