// What a snapshot costs the browser's client: fifty entities of two quantised coordinates, all of which moved. Microseconds, the median of rounds.
import { performance } from 'node:perf_hooks';

import { World } from '../../clients/js/gameserver-world.js';

const ENTITIES = 50;
const SNAPSHOTS = 2000;
const ROUNDS = 7;
const column = (name) => ({ name, type: 'f32', quantize: 0.01, interpolate: true });
const shape = { cell: 100, tick_rate: 20, tables: [{ name: 'Dot', position: ['x', 'y'], columns: [column('x'), column('y')] }] };

function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
  return [...bytes, number];
}

const first = Uint8Array.from([3, 2, 0, ...varint(ENTITIES), ...Array.from({ length: ENTITIES }, (_, index) => [index, 0, ...varint(20_000), ...varint(20_000)]).flat()]);
const moves = Array.from({ length: SNAPSHOTS }, (_, tick) =>
  Uint8Array.from([...varint((tick + 2) * 2), 0, ...varint(ENTITIES), ...Array.from({ length: ENTITIES }, () => [3, ...varint(200), ...varint(199)]).flat()]),
);

/** ms for all snapshots; with three frames drawn behind each, at 60 Hz. */
function played(isDrawn) {
  const world = new World();
  world._begin(shape, false);
  world._apply(first, 0);
  const began = performance.now();
  moves.forEach((snapshot, tick) => {
    world._apply(snapshot, (tick + 1) * 50);
    if (isDrawn) for (let frame = 0; frame < 3; frame += 1) world.sample((tick + 1) * 50 + frame * 16);
  });
  return performance.now() - began;
}

function round() {
  return [(played(false) / SNAPSHOTS) * 1000, (played(true) / SNAPSHOTS) * 1000];
}

round();
const rounds = Array.from({ length: ROUNDS }, round);
const median = (which) => rounds.map((one) => one[which]).sort((a, b) => a - b)[ROUNDS >> 1];
console.log(JSON.stringify({ apply_us: median(0), drawn_us: median(1), bytes: moves[0].length }));
