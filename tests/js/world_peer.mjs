// Reads a line of JSON, answers with one: what the browser client makes of a world's snapshots. tests/js_world.py asks.
//
// `{"begin": shape, "goesOn": false}`, `{"apply": hex, "at": ms}` or `{"sample": ms}`. The answer: `{"error"}`, `{"told", "entities", "mine"}`, or
// `{"drawn", "timing", "bytes", "serverTick"}`; numbers travel as they are, but for bigints: `n:5`, floats that are no integers, infinite or not: `f:` and
// their hex, and bytes: `b:00ff`.
import { createInterface } from 'node:readline';

import { ProtocolError } from '../../clients/js/gameserver.js';
import { World } from '../../clients/js/gameserver-world.js';

/** A value of the client as JSON that says its type. */
function described(value) {
  if (typeof value === 'bigint') return `n:${value}`;
  if (typeof value === 'number') return Number.isSafeInteger(value) && !Object.is(value, -0) ? value : `f:${hexOf(value)}`;
  if (typeof value === 'string') return `s:${value}`;
  if (value instanceof Uint8Array) return `b:${Buffer.from(value).toString('hex')}`;
  if (Array.isArray(value)) return value.map(described);
  if (typeof value === 'object' && value !== null) return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, described(one)]));
  return value;
}

function hexOf(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(number);
  return bytes.toString('hex');
}

const worlds = new Map();

function told(world, tables) {
  const story = [];
  for (const { name } of tables) {
    world.onAdd(name, ({ id }) => story.push(['add', name, String(id)]));
    world.onChange(name, ({ id }) => story.push(['change', name, String(id)]));
    world.onRemove(name, ({ id }) => story.push(['remove', name, String(id)]));
  }
  return story;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { key, begin, apply, at, sample, goesOn } = JSON.parse(line);
  try {
    if (begin) {
      const one = worlds.get(key) ?? { world: new World(), story: null };
      if (!goesOn) one.world = new World();
      one.world._begin(begin, goesOn);
      if (!goesOn) one.story = told(one.world, begin.tables);
      worlds.set(key, one);
      console.log('{}');
      continue;
    }
    const { world, story } = worlds.get(key);
    if (sample !== undefined) {
      const drawn = described(world.sample(sample));
      console.log(JSON.stringify({ drawn, timing: described(world.timing), bytes: Object.fromEntries(world.bytes), serverTick: described(world.serverTick(sample)) }));
      continue;
    }
    const isNew = world._apply(Uint8Array.from(Buffer.from(apply, 'hex')), at);
    const entities = Object.fromEntries(
      Object.entries(world.entities).map(([name, all]) => [name, Object.fromEntries([...all].map(([id, entity]) => [String(id), described(entity)]))]),
    );
    const mine = Object.fromEntries(Object.keys(world.entities).map((name) => [name, described(world.mine(name))]));
    console.log(JSON.stringify({ isNew, told: story.splice(0), entities, mine }));
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    console.log(JSON.stringify({ error: error.message }));
  }
}
