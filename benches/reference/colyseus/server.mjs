// Colyseus under the loads of rust/world/benches/common/motion.rs: `server.mjs CLIENTS ENTITIES MOVING TICKS`. A StateView for each client, of what is in its
// 3 x 3 cells. Says its port; after the ticks, the CPU nanoseconds of one.
import { createServer } from 'node:http';

import { Room, Server } from '@colyseus/core';
import { MapSchema, Schema, StateView, defineTypes, view } from '@colyseus/schema';
import { WebSocketTransport } from '@colyseus/ws-transport';

const [CLIENTS, ENTITIES, MOVING, TICKS] = process.argv.slice(2).map(Number);
const [CELL, SPEED, RATE, WARMUP] = [100, 20, 20, 20];
const SIDE = CELL * Math.sqrt((ENTITIES * 9) / 50);
const WIDTH = Math.ceil(SIDE / CELL) + 2;

class Mover extends Schema {}
defineTypes(Mover, { x: 'float32', y: 'float32' });
class State extends Schema {
  constructor() {
    super();
    this.movers = new MapSchema();
  }
}
defineTypes(State, { movers: { map: Mover } });
view()(State.prototype, 'movers');

const cellOf = ({ x, y }) => (Math.floor(y / CELL) + 1) * WIDTH + Math.floor(x / CELL) + 1;
const around = (cell) => [-WIDTH - 1, -WIDTH, -WIDTH + 1, -1, 0, 1, WIDTH - 1, WIDTH, WIDTH + 1].map((step) => cell + step);

class World extends Room {
  onCreate() {
    this.maxClients = CLIENTS;
    this.patchRate = null;
    this.state = new State();
    this.cells = Array.from({ length: WIDTH * WIDTH }, () => new Set());
    this.versions = new Uint32Array(WIDTH * WIDTH);
    this.seats = [];
    this.movers = Array.from({ length: ENTITIES }, (_, i) => {
      const mover = new Mover();
      mover.x = Math.random() * SIDE;
      mover.y = Math.random() * SIDE;
      this.state.movers.set(String(i), mover);
      const angle = Math.random() * 2 * Math.PI;
      const one = { mover, dx: (Math.cos(angle) * SPEED) / RATE, dy: (Math.sin(angle) * SPEED) / RATE, cell: cellOf(mover) };
      this.cells[one.cell].add(one);
      return one;
    });
  }

  onJoin(client) {
    client.view = new StateView();
    const own = this.movers[Math.floor((this.seats.length * ENTITIES) / CLIENTS)];
    this.seats.push({ client, own, seen: new Set(), version: -1 });
    if (this.seats.length === CLIENTS) this.play();
  }

  play() {
    let tick = 0;
    let began;
    const timer = setInterval(() => {
      if (tick === WARMUP) began = process.cpuUsage();
      if (tick === WARMUP + TICKS) {
        const { user, system } = process.cpuUsage(began);
        console.log(JSON.stringify({ cpu_ns: ((user + system) * 1000) / TICKS, ticks: TICKS }));
        clearInterval(timer);
      }
      this.step(tick);
      tick += 1;
    }, 1000 / RATE);
  }

  step(tick) {
    for (let i = tick % MOVING; i < ENTITIES; i += MOVING) {
      const one = this.movers[i];
      const { mover } = one;
      for (const [axis, by] of [['x', 'dx'], ['y', 'dy']]) {
        const next = mover[axis] + one[by];
        if (next < 0 || next >= SIDE) one[by] = -one[by];
        mover[axis] = Math.min(Math.max(next, 0), SIDE - 0.01);
      }
      const cell = cellOf(mover);
      if (cell === one.cell) continue;
      this.cells[one.cell].delete(one);
      this.cells[cell].add(one);
      this.versions[one.cell] += 1;
      this.versions[cell] += 1;
      one.cell = cell;
    }
    for (const seat of this.seats) this.look(seat);
    this.broadcastPatch();
  }

  look(seat) {
    const cells = around(seat.own.cell);
    const version = cells.reduce((sum, cell) => sum + this.versions[cell], seat.own.cell * 1e9);
    if (version === seat.version) return;
    seat.version = version;
    const now = new Set(cells.flatMap((cell) => [...this.cells[cell]]));
    for (const one of seat.seen) if (!now.has(one)) seat.client.view.remove(one.mover);
    for (const one of now) if (!seat.seen.has(one)) seat.client.view.add(one.mover);
    seat.seen = now;
  }
}

const server = createServer();
const game = new Server({ greet: false, transport: new WebSocketTransport({ server, pingInterval: 0 }) });
game.define('world', World);
await game.listen(0);
console.log(server.address().port);
process.on('SIGTERM', () => process.exit(0));
